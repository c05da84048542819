#!/bin/sh
# Tries what an agent should not be able to do and says how it went.
try() {
  what=$1
  shift
  if "$@" >/dev/null 2>&1; then echo "$what: WORKED"; else echo "$what: refused"; fi
}
echo "hello from uid $(id -u), in $(pwd)"
try "reads outside its view" cat /etc/shadow
try "reads another home" ls /root
try "writes outside its workdir" sh -c 'echo x > /usr/agt-hello'
try "becomes root" sh -c 'exec su -c true root'
try "sees other processes" sh -c 'test "$(ls -d /proc/[0-9]* | wc -l)" -gt 20'
try "network outside" python3 -c 'import socket; socket.create_connection(("192.0.2.1", 80), 2)'
echo "hello" > greeting.txt && echo "writes its workdir: works"
