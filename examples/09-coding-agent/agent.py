"""What coding agents do all day: a repository of their own, an edit, a build, a test run, a commit, all through the shell."""

import pathlib
import subprocess

PROJECT = pathlib.Path("project")
GIT = "git -c user.name=agent -c user.email=agent@example.org"


def sh(command: str) -> str:
    """Runs a command as a model would ask for it; what it prints is what the model sees."""
    done = subprocess.run(["bash", "-c", command], cwd=PROJECT, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"`{command}` ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


PROJECT.mkdir(exist_ok=True)
if not (PROJECT / ".git").exists():
    sh("git init --quiet . 2>/dev/null")
(PROJECT / "add.c").write_text('#include <stdio.h>\nint main(void) { printf("%d\\n", 40 + 1); return 0; }\n')
(PROJECT / "Makefile").write_text("add: add.c\n\tcc -O1 -o $@ $<\n\ntest: add\n\t@./add | grep -qx 42\n")
try:
    sh("make -s -j4 test")
except SystemExit:
    print("the test fails: an edit")
sh("sed -i 's/40 + 1/40 + 2/' add.c")
sh("make -s -j4 test")
print("the test passes")
sh(f"git add add.c Makefile && {GIT} commit --quiet --allow-empty -m 'Add up'")
sh("git grep -n printf | head -1 && find . -name '*.c' | xargs wc -l && python3 -c 'print(1)'")
print("committed:", sh("git log --format=%s -1"))
