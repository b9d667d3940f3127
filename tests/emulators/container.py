"""container.py ENDPOINT ACCOUNT CONTAINER: makes a container that anybody may read, by the key in AZURE_STORAGE_ACCOUNT_KEY."""

import base64
import hashlib
import hmac
import os
import sys
import urllib.request
from email.utils import formatdate

endpoint, account, container = sys.argv[1:]
headers = {"x-ms-blob-public-access": "container", "x-ms-date": formatdate(usegmt=True), "x-ms-version": "2023-11-03"}
lines = ["PUT", "", "", "", "", "text/plain", "", "", "", "", "", "", *(f"{name}:{value}" for name, value in headers.items())]
signed = "\n".join([*lines, f"/{account}/{account}/{container}", "restype:container"])
key = base64.b64decode(os.environ["AZURE_STORAGE_ACCOUNT_KEY"])
signature = base64.b64encode(hmac.new(key, signed.encode(), hashlib.sha256).digest()).decode()
headers |= {"Authorization": f"SharedKey {account}:{signature}", "Content-Type": "text/plain"}
urllib.request.urlopen(urllib.request.Request(f"{endpoint}/{container}?restype=container", method="PUT", data=b"", headers=headers), timeout=30)
