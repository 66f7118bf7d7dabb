"""Runs a model that `onecopy serve` or `onecopy load` of the same user keeps in memory.

    import onecopy
    outputs = onecopy.run("logp", {"fingerprint": array})

    session = onecopy.attach("logp")
    outputs = session.run(None, {"fingerprint": array})

`run` sends a request over the server's Unix socket, in the binary form of the Open Inference Protocol V2; no process is
started. `attach` returns an `onnxruntime.InferenceSession` on the pages that the server's workers have mapped. It needs
the package onnxruntime in the server's version. Otherwise the standard library is enough; numpy arrays are accepted and
returned where numpy is installed.
"""

import array as _array
import fcntl
import json
import math
import os
import re
import socket
import struct
import sys
import zlib

__all__ = ["Error", "Tensor", "attach", "run"]

_FOLDER = re.compile(r"^onecopy-\d+-\d+$")
_MAGIC = b"ONECOPY\n"
_FORMAT_VERSION = 11
_PREFIX = struct.Struct("<8sIIII8x")
_SEALED_MODE = 0o400
_BLOCK_BYTES = 512

# Datatype of the protocol: type code of the module array, name in numpy, bytes of an element.
_DATATYPES = {
    "BOOL": ("B", "bool", 1),
    "UINT8": ("B", "uint8", 1),
    "UINT16": ("H", "uint16", 2),
    "UINT32": ("I", "uint32", 4),
    "UINT64": ("Q", "uint64", 8),
    "INT8": ("b", "int8", 1),
    "INT16": ("h", "int16", 2),
    "INT32": ("i", "int32", 4),
    "INT64": ("q", "int64", 8),
    "FP16": ("H", "float16", 2),
    "BF16": ("H", "uint16", 2),
    "FP32": ("f", "float32", 4),
    "FP64": ("d", "float64", 8),
}


class Error(Exception):
    """An error with a `code` of docs/errors.md."""

    def __init__(self, code, message):
        super().__init__(f"{code}: {message}")
        self.code = code


class Tensor:
    """A tensor where numpy is not installed: elements in row-major order, and a shape."""

    def __init__(self, data, shape, datatype=None):
        self.data = data
        self.shape = list(shape)
        self.datatype = datatype

    def __repr__(self):
        return f"Tensor({self.datatype}, {self.shape})"


def _numpy():
    """None where it is not installed."""
    try:
        import numpy
    except ImportError:
        return None
    return numpy


# --- Servers and models -------------------------------------------------------------------------------------------


def _boot_id():
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def _is_alive(folder):
    """Whether the server of a folder runs: by its process, or by the lock that it holds in another container."""
    try:
        with open(os.path.join(folder, "owner.json"), encoding="utf-8") as file:
            owner = json.load(file)
            if owner.get("bootId") == _boot_id():
                with open(f"/proc/{int(owner['pid'])}/stat", encoding="latin-1") as stat:
                    text = stat.read()
                fields = text[text.rindex(")") + 2 :].split(" ")
                if fields[0] not in "ZX" and int(fields[19]) == owner["startTicks"]:
                    return True
    except (OSError, ValueError, KeyError, TypeError):
        pass
    try:
        with open(os.path.join(folder, "owner.json"), "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def _servers(segment_dir):
    """Folders of live servers of this user, the youngest first."""
    try:
        entries = [entry for entry in os.scandir(segment_dir) if _FOLDER.match(entry.name)]
    except OSError as thrown:
        raise Error("SEGMENT_FOLDER_INVALID", f"cannot read {segment_dir}: {thrown}") from None
    found = []
    for entry in entries:
        try:
            stat = entry.stat(follow_symlinks=False)
        except OSError:
            continue
        if entry.is_dir(follow_symlinks=False) and stat.st_uid == os.getuid() and _is_alive(entry.path):
            found.append((stat.st_ctime_ns, int(entry.name.split("-")[2]), entry.path))
    return [path for _, _, path in sorted(found, key=lambda one: one[1], reverse=True)]


def _segment_dir(given):
    return os.path.abspath(given or os.environ.get("ONECOPY_SEGMENT_DIR") or "/dev/shm")


def _not_resident(name, segment_dir):
    return Error(
        "MODEL_NOT_RESIDENT",
        f"no process of this user keeps model {name!r} in {segment_dir}: start onecopy load MODEL.onnx "
        f"--name {name} --segment-dir {segment_dir}, or onecopy serve",
    )


def _note(folder):
    try:
        with open(os.path.join(folder, "resident.json"), encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError):
        return {}


# --- Over the socket ----------------------------------------------------------------------------------------------


class _Connection:
    """HTTP/1.1 over a Unix socket. http.client would take longer to import than a small model to run."""

    def __init__(self, path, timeout):
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(path)
        except BaseException:
            self._socket.close()
            raise
        self._file = self._socket.makefile("rb")

    def exchange(self, method, path, headers, body):
        """Status, headers by lower-case name, and body."""
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        try:
            self._socket.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
            self._socket.sendall(body)
        except (BrokenPipeError, ConnectionResetError):
            # A server that rejects a body closes before it has read all of it: its answer has the reason.
            pass
        status = self._line().split(" ", 2)[1:2]
        if not status or not status[0].isdigit():
            raise ConnectionError("expected an answer in HTTP")
        answered = {}
        while line := self._line():
            name, _, value = line.partition(":")
            answered[name.strip().lower()] = value.strip()
        return int(status[0]), answered, self._body(answered)

    def _line(self):
        line = self._file.readline(65537)
        if not line.endswith(b"\n"):
            raise ConnectionError("the connection was closed")
        return line.decode("latin-1").strip()

    def _exactly(self, count):
        data = self._file.read(count)
        if len(data) != count:
            raise ConnectionError("the connection was closed")
        return data

    def _body(self, headers):
        if headers.get("transfer-encoding", "").lower() != "chunked":
            return self._exactly(int(headers.get("content-length", 0)))
        parts = []
        while size := int(self._line().split(";")[0], 16):
            parts.append(self._exactly(size))
            self._line()
        while self._line():
            pass
        return b"".join(parts)

    def close(self):
        self._file.close()
        self._socket.close()


def _request(connection, method, path, body=b"", headers=None):
    status, answered, data = connection.exchange(method, path, headers or {}, body)
    if status != 200:
        try:
            message = json.loads(data).get("error", "")
        except ValueError:
            message = data[:200].decode("utf-8", "replace")
        raise Error(answered.get("x-error-code") or f"HTTP_{status}", message)
    return answered, data


def _quoted(name):
    """A part of a path."""
    return "".join(chr(one) if chr(one).isalnum() and one < 128 else f"%{one:02X}" for one in name.encode("utf-8"))


def _elements(name, value, spec):
    """Datatype, shape and bytes of one input."""
    datatype = spec["datatype"]
    numpy = _numpy()
    shape = getattr(value, "shape", None)
    if datatype == "BYTES":
        flat = value.reshape(-1).tolist() if numpy is not None and isinstance(value, numpy.ndarray) else value
        flat = flat.data if isinstance(flat, Tensor) else flat
        texts = [one if isinstance(one, bytes) else str(one).encode("utf-8") for one in flat]
        data = b"".join(struct.pack("<I", len(one)) + one for one in texts)
        return list(shape) if shape is not None else _shape_of(name, spec, len(texts)), data
    code, kind, size = _DATATYPES[datatype]
    if numpy is not None and not isinstance(value, (Tensor, _array.array, bytes)):
        given = numpy.asarray(value)
        if given.dtype != numpy.dtype(kind):
            # A list of Python numbers has no type of its own; an array of another type is a mistake.
            if isinstance(value, numpy.ndarray):
                raise Error("TENSOR_INVALID", f"input {name!r}: expected {kind} for {datatype}, got {given.dtype}")
            given = given.astype(kind)
        return list(given.shape), numpy.ascontiguousarray(given).tobytes()
    data = value.data if isinstance(value, Tensor) else value
    if not isinstance(data, (bytes, _array.array)):
        data = _array.array(code, data)
    if isinstance(data, _array.array):
        if data.itemsize != size:
            raise Error("TENSOR_INVALID", f"input {name!r}: expected elements of {size} bytes, got {data.itemsize}")
        data = data.tobytes()
    return list(shape) if shape is not None else _shape_of(name, spec, len(data) // size), data


def _shape_of(name, spec, count):
    """The shape that fits the model, if at most one dimension is variable."""
    shape = spec["shape"]
    known = math.prod(one for one in shape if one >= 0)
    if sum(one < 0 for one in shape) > 1 or known == 0:
        raise Error("TENSOR_INVALID", f"input {name!r}: expected a shape: give onecopy.Tensor(data, shape)")
    return [count // known if one < 0 else one for one in shape]


def _decoded(output, data):
    """One output and how many bytes it took."""
    datatype, shape = output["datatype"], output["shape"]
    size = output["parameters"]["binary_data_size"]
    raw = data[:size]
    numpy = _numpy()
    if datatype == "BYTES":
        texts, at = [], 0
        while at < size:
            (length,) = struct.unpack_from("<I", raw, at)
            texts.append(raw[at + 4 : at + 4 + length].decode("utf-8"))
            at += 4 + length
        value = Tensor(texts, shape, datatype) if numpy is None else numpy.array(texts, dtype=object).reshape(shape)
        return value, size
    code, kind, _ = _DATATYPES[datatype]
    if numpy is not None:
        return numpy.frombuffer(bytearray(raw), dtype=kind).reshape(shape), size
    return Tensor(_array.array(code, raw), shape, datatype), size


def _infer(connection, name, inputs, *, version, outputs, headers):
    path = f"/v2/models/{_quoted(name)}"
    if version is not None:
        path += f"/versions/{version}"
    _, text = _request(connection, "GET", path, headers=headers)
    specs = {spec["name"]: spec for spec in json.loads(text)["inputs"]}
    described, parts = [], []
    for key, value in inputs.items():
        if key not in specs:
            raise Error("TENSOR_INVALID", f"input {key!r}: the model has no such input; its inputs are {', '.join(specs)}")
        shape, data = _elements(key, value, specs[key])
        parameters = {"binary_data_size": len(data)}
        described.append(
            {"name": key, "datatype": specs[key]["datatype"], "shape": shape, "parameters": parameters}
        )
        parts.append(data)
    asked = {"inputs": described, "parameters": {"binary_data_output": True}}
    if outputs is not None:
        asked["outputs"] = [{"name": one} for one in outputs]
    head = json.dumps(asked).encode("utf-8")
    answer_headers, body = _request(
        connection,
        "POST",
        f"{path}/infer",
        body=b"".join([head, *parts]),
        headers={
            **headers,
            "Content-Type": "application/octet-stream",
            "Inference-Header-Content-Length": str(len(head)),
        },
    )
    json_bytes = int(answer_headers.get("inference-header-content-length") or len(body))
    results, at = {}, json_bytes
    for output in json.loads(body[:json_bytes])["outputs"]:
        results[output["name"]], size = _decoded(output, body[at:])
        at += size
    return results


def run(name, inputs, *, version=None, outputs=None, segment_dir=None, timeout=120.0, api_key=None):
    """Runs a model of a living server once; returns the outputs by name.

    Inputs are numpy arrays of the model's types, arrays of the module array, or `Tensor`; outputs are numpy arrays where
    numpy is installed, and `Tensor` elsewhere. Raises Error: MODEL_NOT_RESIDENT with the command that would keep the
    model, and the errors of the server.
    """
    directory = _segment_dir(segment_dir)
    headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
    refusal = None
    for folder in _servers(directory):
        note = _note(folder)
        path = note.get("socketPath")
        if path is None:
            continue
        asked = note["modelName"] if name in note.get("names", ()) and note.get("modelName") else name
        connection = None
        try:
            connection = _Connection(path, timeout)
            return _infer(connection, asked, inputs, version=version, outputs=outputs, headers=headers)
        except (FileNotFoundError, ConnectionError) as thrown:
            refusal = refusal or Error("SHUTTING_DOWN", f"the server of {folder} does not answer: {thrown!r}")
        except TimeoutError:
            raise Error("TIMEOUT", f"waited {timeout} s for the server of {folder}") from None
        except Error as thrown:
            if thrown.code != "MODEL_NOT_FOUND":
                raise
        finally:
            if connection is not None:
                connection.close()
    if refusal is not None:
        raise refusal
    raise _not_resident(name, directory)


# --- On the same pages --------------------------------------------------------------------------------------------


def _line(file):
    text = file.readline()
    if not text:
        raise Error("SHUTTING_DOWN", "the process that keeps the model is ending")
    return json.loads(text)


def _offer(name, version, directory, timeout):
    """The connection that holds the lease, and the owner's offer."""
    for folder in _servers(directory):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(timeout)
            connection.connect(os.path.join(folder, "attach.sock"))
            asked = {"type": "attach", "name": name, "version": None if version is None else str(version)}
            connection.sendall((json.dumps(asked) + "\n").encode("utf-8"))
            answer = _line(connection.makefile("r", encoding="utf-8"))
        except TimeoutError:
            connection.close()
            raise Error("TIMEOUT", f"waited {timeout} s for the process that keeps model {name}") from None
        except (OSError, ValueError):
            connection.close()
            continue
        if answer["type"] == "offer":
            return connection, answer
        connection.close()
        if answer["code"] != "MODEL_NOT_FOUND":
            raise Error(answer["code"], answer["message"])
    raise _not_resident(name, directory)


def _refuse(path, message):
    return Error("SEGMENT_INVALID", f"segment {path}: {message}")


def _check_file(file, reference):
    """Checks that it is the offered file: sealed, of this user, and complete."""
    path = reference["path"]
    stat = os.fstat(file.fileno())
    if stat.st_uid != os.getuid() or stat.st_mode & 0o7777 != _SEALED_MODE:
        raise _refuse(path, f"expected owner {os.getuid()} and mode 0400")
    if stat.st_ino != reference["inode"] or stat.st_size != reference["fileBytes"]:
        raise _refuse(path, "it is not the offered file")
    if str(stat.st_ctime_ns) != reference["changedNs"]:
        raise _refuse(path, "it was changed after it was verified")
    if stat.st_blocks * _BLOCK_BYTES < stat.st_size:
        raise _refuse(path, "its raw weights are released")


def _head(file, reference):
    """The header, and the graph's bytes."""
    path = reference["path"]
    magic, version, header_bytes, json_bytes, checksum = _PREFIX.unpack(file.read(_PREFIX.size))
    if magic != _MAGIC or version != _FORMAT_VERSION:
        raise _refuse(path, f"expected segment format {_FORMAT_VERSION}: this module is of another version")
    text = file.read(json_bytes)
    if len(text) != json_bytes or zlib.crc32(text) != checksum:
        raise _refuse(path, "the header does not match its checksum")
    header = json.loads(text)
    file.seek(header["graph"]["offsetBytes"])
    graph = file.read(header["graph"]["bytes"])
    import hashlib

    if hashlib.sha256(graph).hexdigest() != reference["graphSha256"]:
        raise _refuse(path, "the graph does not match its digest")
    return header, graph


def _uses_raw_weights(header, inode):
    """Whether the session still maps weights that their owner could release."""
    start = header["data"]["offsetBytes"]
    mapped = []
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
        for line in maps:
            span, _, offset, _, number = line.split(maxsplit=5)[:5]
            if number == str(inode):
                first, last = (int(one, 16) for one in span.split("-"))
                mapped.append((int(offset, 16), int(offset, 16) + last - first))
    return any(
        low < start + one["offsetBytes"] + one["bytes"] and high > start + one["offsetBytes"]
        for one in header["rawRanges"]
        for low, high in mapped
    )


# --- The self-check: src/compile/self-check.ts ---------------------------------------------------------------------

_SELF_CHECK_SEED = 17
_VOCABULARIES = (
    (10, ("a", "red", "male", "female", "S", "north", "yes", "7")),
    (2, ("0", "1", "2", "3", "4", "5", "6", "7")),
)
# Largest permitted difference, relative to the largest value of the output; other datatypes must be equal.
_TOLERANCES = {"FP64": 1e-9, "FP32": 1e-4, "FP16": 2e-2, "BF16": 2e-2}
_MAX_TEXT_BYTES = 2 * 64


def _uniform(numpy, first, count):
    """Numbers `first` to `first + count` of the generator Mulberry32, uniform in [0, 1)."""
    with numpy.errstate(over="ignore"):
        step = numpy.arange(first + 1, first + count + 1, dtype="uint32")
        state = numpy.uint32(_SELF_CHECK_SEED) + step * numpy.uint32(0x6D2B79F5)
        mixed = (state ^ state >> 15) * (state | 1)
        mixed ^= mixed + (mixed ^ mixed >> 7) * (mixed | 61)
        return (mixed ^ mixed >> 14) / 2.0**32


def _half_bits(numpy, values):
    """The sixteen bits of numbers in [-1, 1), rounded towards zero as the recorder does."""
    size = numpy.abs(values)
    exponent = numpy.floor(numpy.log2(numpy.maximum(size, 2.0**-14)))
    bits = (exponent + 15) * 1024 + numpy.floor((size / 2.0**exponent - 1) * 1024)
    bits = numpy.where(size < 2.0**-14, numpy.floor(size * 2.0**24), bits).astype("uint16")
    return bits | numpy.where(numpy.signbit(values), 0x8000, 0).astype("uint16")


def _drawn(numpy, datatype, random, vocabulary):
    """Elements as the session takes them, one for each random number."""
    below, words = vocabulary
    if datatype == "BYTES":
        return numpy.array([words[int(one * len(words))] for one in random], dtype=object)
    if datatype == "BOOL":
        return (random * 2).astype("int64").astype("bool")
    if datatype not in _TOLERANCES:
        return (random * below).astype("int64").astype(_DATATYPES[datatype][1])
    values = random * 2.0 - 1.0
    if datatype == "FP16":
        return _half_bits(numpy, values).view("float16")
    if datatype == "BF16":
        # The compiled graph casts it: the session takes and gives float32.
        return (values.astype("float32").view("uint32") & numpy.uint32(0xFFFF0000)).view("float32")
    return values.astype(_DATATYPES[datatype][1])


def _recorded_inputs(numpy, check, specs):
    """The inputs that the recorded answer is for."""
    feeds, at = {}, 0
    for spec in specs:
        shape = [
            one if one != -1 else (1 if axis == 0 else check["dimension"]) for axis, one in enumerate(spec["shape"] or [])
        ]
        count = math.prod(shape)
        random = _uniform(numpy, at, count)
        feeds[spec["name"]] = _drawn(numpy, spec["datatype"], random, _VOCABULARIES[check["vocabulary"]]).reshape(shape)
        at += count
    return feeds


def _difference(numpy, expected, datatype, got):
    """How an output differs from the recorded one; None where it agrees within the rounding of its datatype."""
    if list(got.shape) != expected["shape"]:
        return f"shape {list(got.shape)} instead of {expected['shape']}"
    elements = expected["elements"]
    first = got.reshape(-1)[: len(elements)]
    if datatype == "BYTES":
        cut = [str(one).encode("utf-16-le", "surrogatepass")[:_MAX_TEXT_BYTES] for one in first.tolist()]
        wanted = [str(one).encode("utf-16-le", "surrogatepass") for one in elements]
        return None if cut == wanted else "other text"
    if datatype not in _TOLERANCES:
        return None if [int(one) for one in first.tolist()] == [int(one) for one in elements] else "other values"
    if datatype == "FP16":
        wanted = numpy.array(elements, dtype="uint16").view("float16")
    elif datatype == "BF16":
        wanted = (numpy.array(elements, dtype="uint32") << 16).view("float32")
    else:
        wanted = numpy.array([float(one) for one in elements], dtype=_DATATYPES[datatype][1])
    a, b = first.astype("float64"), wanted.astype("float64")
    finite = numpy.abs(b[numpy.isfinite(b)])
    tolerance = _TOLERANCES[datatype] * (finite.max() if finite.size else 0.0)
    with numpy.errstate(invalid="ignore"):
        same = (a == b) | (numpy.isnan(a) & numpy.isnan(b)) | (numpy.abs(a - b) <= tolerance)
        return None if same.all() else f"values that differ by {numpy.abs(a - b)[~same].max()}"


def _check_self(session, header):
    """Repeats the run that was recorded when the model was compiled. Raises Error SELF_CHECK_FAILED."""
    check = header["selfCheck"]
    if check is None:
        return
    numpy = _numpy()
    feeds = _recorded_inputs(numpy, check, [one for one in header["inputs"] if not one.get("optional")])
    datatypes = {one["name"]: one["datatype"] for one in header["outputs"]}
    names = [one["name"] for one in check["outputs"]]
    for expected, got in zip(check["outputs"], session.run(names, feeds)):
        how = _difference(numpy, expected, datatypes[expected["name"]], got)
        if how is not None:
            raise Error(
                "SELF_CHECK_FAILED",
                f"output {expected['name']!r} of the self-check: expected the output recorded at compile time, got {how}",
            )


# --- attach --------------------------------------------------------------------------------------------------------


def attach(name, *, version=None, segment_dir=None, threads=None, timeout=120.0):
    """An `onnxruntime.InferenceSession` on the pages that the server's workers have mapped.

    The weights are mapped read-only, not loaded. The session stays valid when the server replaces the model, ends or is
    killed. Raises Error: MODEL_NOT_RESIDENT with the command that would keep the model, RUNTIME_UNAVAILABLE without the
    package onnxruntime, SEGMENT_INVALID where it has another version than the server or the file is not as it was sealed,
    SELF_CHECK_FAILED where the session does not give the answer that was recorded when the model was compiled.
    """
    try:
        # Before the library is loaded: it would upload what it is used for.
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        import onnxruntime
    except ImportError:
        raise Error("RUNTIME_UNAVAILABLE", "attach needs the package onnxruntime; run needs nothing") from None
    directory = _segment_dir(segment_dir)
    connection, offer = _offer(name, version, directory, timeout)
    lock = None
    try:
        reference = offer["segment"]
        path = reference["path"]
        lock = open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")
        # While this lock is shared, the owner releases no raw weights.
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        _check_file(lock, reference)
        header, graph = _head(lock, reference)
        if header["runtimeVersion"] != onnxruntime.__version__:
            raise _refuse(
                path,
                f"it was compiled for onnxruntime {header['runtimeVersion']}, this process has "
                f"{onnxruntime.__version__}: pip install onnxruntime=={header['runtimeVersion']}",
            )
        owner = header["owner"]
        if owner is None or owner["bootId"] != _boot_id():
            raise _refuse(path, "it was compiled for the CPU of another machine")
        session = onnxruntime.InferenceSession(
            graph,
            sess_options=_session_options(onnxruntime, header, path, threads or offer["threads"]),
            providers=["CPUExecutionProvider"],
        )
        _check_self(session, header)
        if _uses_raw_weights(header, reference["inode"]):
            # Kept with the session: closed when it is collected.
            session._onecopy_lock, lock = lock, None
        return session
    except (BlockingIOError, FileNotFoundError) as thrown:
        raise _refuse(offer["segment"]["path"], f"it has just been replaced: attach again ({thrown})") from None
    finally:
        if lock is not None:
            lock.close()
        connection.close()


def _session_options(onnxruntime, header, path, threads):
    options = onnxruntime.SessionOptions()
    # A compiled graph is final: optimising it again would undo the match with its packed weights.
    is_compiled = header["form"] == "compiled"
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_DISABLE_ALL if is_compiled else level.ORT_ENABLE_ALL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    folder = os.path.dirname(path) if is_compiled else header["externalDataFolder"]
    if folder is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
    return options


if __name__ == "__main__":
    print(__doc__, file=sys.stderr)
    sys.exit(2)
