#!/usr/bin/env python3
"""`ashlar run` at a real terminal (a pseudo terminal of Python's): editing, history, UTF-8, Ctrl-C, resize, leaving.

usage: chat_pty.py ASHLAR MODEL"""
import errno
import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time


class Chat:
    def __init__(self, *args):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ["TERM"] = "xterm"
            os.environ["LC_ALL"] = "C.UTF-8"
            os.execv(args[0], args)
        self.log = b""

    def read(self, seconds):
        end = time.time() + seconds
        while time.time() < end:
            r, _, _ = select.select([self.fd], [], [], 0.05)
            if not r:
                continue
            try:
                b = os.read(self.fd, 65536)
            except OSError as e:
                if e.errno == errno.EIO:
                    return False
                raise
            if not b:
                return False
            self.log += b
        return True

    def wait_for(self, text, seconds=30):
        text = text.encode() if isinstance(text, str) else text
        end = time.time() + seconds
        while text not in self.log and time.time() < end:
            if not self.read(0.1):
                break
        if text not in self.log:
            raise AssertionError(f"no {text!r} in {self.log[-600:]!r}")
        self.log = self.log[self.log.index(text) + len(text):]

    def send(self, text):
        os.write(self.fd, text.encode() if isinstance(text, str) else text)

    def exit_code(self, seconds=10):
        end = time.time() + seconds
        while time.time() < end:
            self.read(0.05)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        raise AssertionError(f"did not leave: {self.log[-300:]!r}")


def main():
    ashlar, model = sys.argv[1:3]
    # a line, edited: the answer comes, the prompt comes back
    c = Chat(ashlar, "run", model, "-n", "5", "--temp", "0")
    c.wait_for("> ")
    c.send("helXX\x7f\x7flo\r")
    c.wait_for("; answer ")
    c.wait_for("> ")
    # history: the arrow brings it back
    c.send("\x1b[A")
    c.wait_for("hello")
    c.send("\r")
    c.wait_for("; answer ")
    c.wait_for("> ")
    # characters of several bytes, one of them taken back
    c.send("\u00e9\u4f60\x7f\U0001f642\r")
    c.wait_for("; answer ")
    c.wait_for("> ")
    # resize while waiting
    fcntl.ioctl(c.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 50, 0, 0))
    os.kill(c.pid, signal.SIGWINCH)
    c.send("again\r")
    c.wait_for("; answer ")
    c.wait_for("> ")
    # several lines at once: each is a message
    c.send("one\rtwo\r")
    c.wait_for("; answer ")
    c.wait_for("; answer ")
    c.wait_for("> ")
    c.send("/help\r")
    c.wait_for("/again")
    # Ctrl-C at the prompt asks; a second one leaves
    c.wait_for("> ")
    c.send("\x03")
    c.wait_for("Ctrl-C again")
    c.wait_for("> ")
    c.send("\x03")
    assert c.exit_code() == 0
    # Ctrl-C stops an answer and not the program; Ctrl-D leaves
    c = Chat(ashlar, "run", model, "--ignore-eos", "-c", "65536")
    c.wait_for("> ")
    c.send("go on\r")
    c.wait_for("go on")
    time.sleep(0.3)
    c.send("\x03")
    c.wait_for("stopped: interrupted")
    c.wait_for("> ")
    c.send("/bye\r")
    assert c.exit_code() == 0
    c = Chat(ashlar, "run", model, "-n", "3")
    c.wait_for("> ")
    c.send("\x04")
    assert c.exit_code() == 0
    print("the terminal behaves")


main()
