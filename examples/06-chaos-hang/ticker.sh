# Says something five times a second: one sees when it stands still.
n=0
while true; do
  n=$((n + 1))
  echo "tick $n"
  sleep 0.2
done
