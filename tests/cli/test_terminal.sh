#!/bin/sh
# The chat of `ashlar run` at a terminal: chat_pty.py plays the person. Skipped where there is no python3 or no pseudo terminal.
set -u
A=${ASHLAR:?} M=${ASH_TEST_DATA:?}/golden/llama/model.gguf
command -v python3 >/dev/null || { echo "skipped: no python3"; exit 0; }
python3 -c 'import os, pty; os.close(pty.openpty()[0])' 2>/dev/null || { echo "skipped: no pseudo terminal"; exit 0; }
exec python3 "$(dirname "$0")/chat_pty.py" "$A" "$M"
