#!/bin/sh
# The third step: the van is broken, each time.
echo "attempt $AGT_ATTEMPT: the van does not start" >&2
exit 1
