#!/bin/sh
# act.sh STEP WORDS: takes effect (a line in ledger.txt) and answers with one JSON object. The idempotency key is the same each
# time this step of this saga runs: a repeat finds its own line and changes nothing.
touch ledger.txt
if ! grep -qF "+ $AGT_IDEMPOTENCY_KEY " ledger.txt; then
  echo "+ $AGT_IDEMPOTENCY_KEY $2" >> ledger.txt
fi
echo "{\"id\": \"$1-17\"}"
