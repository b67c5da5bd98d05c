"""An answer with status 500 is taken for an answer. With the argument ``clean`` the same program without its fault."""

import os

import requests
from stopwatch import CLEAN, linger, mark

port = os.environ["PORT_FINE"] if CLEAN else os.environ["PORT_FAILS"]
answer = requests.get(f"http://127.0.0.1:{port}/", timeout=5)
mark()
print(len(answer.text))
linger()
