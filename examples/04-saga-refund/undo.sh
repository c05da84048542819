#!/bin/sh
# undo.sh STEP WORDS: takes the effect back, once, and only if it is there. AGT_OUTPUT_ID is what the step answered.
touch ledger.txt
done_key="${AGT_IDEMPOTENCY_KEY%/undo}"
if grep -qF "+ $done_key " ledger.txt && ! grep -qF -- "- $done_key " ledger.txt; then
  echo "- $done_key $2 (${AGT_OUTPUT_ID:-no id})" >> ledger.txt
fi
