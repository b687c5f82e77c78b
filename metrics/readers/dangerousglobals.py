"""What a pickle may name that runs code of its author, or reaches for it, where a pickle is loaded unguarded.

A closed table of what is never part of weights: modules that start programs, import, evaluate, open sockets or
files, and single functions that evaluate a text or load another pickle. It holds what the tables of picklescan
(https://github.com/mmaitre314/picklescan, ``_unsafe_globals``) and fickling (https://github.com/trailofbits/fickling,
``UnsafeImportsML``) call dangerous, apart from what torch and Python themselves put into honest checkpoints:
``functools.partial`` (what it calls is a global of its own), ``getattr`` of a class or an object (nested classes and
bound methods are pickled so) and ``torch.storage._load_from_bytes`` (storages that were pickled without torch).
"""

from __future__ import annotations

from collections.abc import Iterator

from layerwatch.metrics.readers.picklevalues import Global

MAX_NAMES = 100
"""Most different names that are kept of one file."""

MAX_DOTS = 20
"""In the name of an attribute. Nested classes of honest checkpoints go a few levels deep."""

GETATTR = frozenset({"builtins.getattr", "__builtin__.getattr"})
"""Judged by what it is called with."""


class ForeignCode:
    """Collects what the pickles of one file ask for that runs code, each name once, in order."""

    def __init__(self) -> None:
        self._names: dict[str, None] = {}

    def meet(self, named: Global) -> None:
        """Keep the name of a global if it is in the table; ``getattr`` is looked at where it is called."""
        if runs_code(named.module, named.name):
            self.add(str(named))

    def add(self, name: str) -> None:
        """Keep a name, in printable ASCII: it is shown to people, and comes from whoever wrote the file."""
        if len(self._names) < MAX_NAMES:
            self._names.setdefault(name.encode("unicode_escape").decode("ascii")[:120])

    @property
    def names(self) -> tuple[str, ...]:
        """What was kept."""
        return tuple(self._names)


def runs_code(module: str, attributes: str) -> bool:
    """Whether a global is in the table.

    Args:
        module: empty where an attribute of an unknown object is meant.
        attributes: what is looked up in it, which may be dotted as well: torch.serialization imports os, so that its
            ``os.system`` is the one of os.
    """
    if attributes.count(".") > MAX_DOTS:
        return True
    dotted = f"{module}.{attributes}"
    return any(one in _MODULES or one in _FUNCTIONS for one in _prefixes(dotted)) or any(
        part in _INSIDES or part.lstrip("_") in _REACHED for part in attributes.split(".")
    )


def _prefixes(dotted: str) -> Iterator[str]:
    """``a``, ``a.b``, ``a.b.c`` ... as far as names of the table go."""
    end = dotted.find(".")
    while 0 <= end < _LONGEST:
        yield dotted[:end]
        end = dotted.find(".", end + 1)
    yield dotted


_MODULES = frozenset(
    {
        *("os", "posix", "nt", "subprocess", "_posixsubprocess", "popen2", "sys", "_thread", "pty"),
        *("shutil", "ctypes", "_ctypes", "cffi", "importlib", "imp", "_imp", "pkgutil", "zipimport"),
        *("runpy", "pydoc", "webbrowser", "antigravity", "socket", "_socket", "socketserver", "ssl"),
        *("httplib", "urllib2", "urllib.request", "http.client", "http.server", "ftplib", "smtplib"),
        *("telnetlib", "poplib", "imaplib", "nntplib", "xmlrpc", "requests.api", "aiohttp", "asyncio"),
        *("multiprocessing.connection", "pickle", "_pickle", "cPickle", "marshal", "shelve", "codeop"),
        *("bdb", "pdb", "timeit", "cProfile", "venv", "ensurepip", "pip", "idlelib", "lib2to3", "gc"),
        *("distutils.core", "distutils.file_util", "distutils.spawn", "torch.hub"),
        *("torch.utils.cpp_extension", "torch.utils.bottleneck", "torch.utils.collect_env"),
        *("numpy.testing", "numpy.f2py", "numpy.distutils", "numpy.ctypeslib", "six.moves", "setuptools"),
        "pkg_resources",
    }
)
"""All that is in them."""

_BUILTIN = (
    *("eval", "exec", "execfile", "compile", "__import__", "open", "file", "input", "raw_input"),
    *("breakpoint", "apply", "setattr", "delattr", "globals", "locals", "vars", "reload", "help", "exit"),
    "quit",
)

_FUNCTIONS = frozenset(
    {
        *(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in _BUILTIN),
        *("code.InteractiveInterpreter", "code.InteractiveConsole", "code.interact", "commands.getoutput"),
        *("commands.getstatusoutput", "commands.getstatus", "urllib.urlopen", "urllib.urlretrieve"),
        *("io.open", "io.open_code", "io.FileIO", "_io.open", "_io.open_code", "_io.FileIO", "codecs.open"),
        *("profile.run", "profile.runctx", "profile.Profile", "trace.Trace", "doctest.debug_script"),
        *("doctest.debug", "operator.attrgetter", "operator.methodcaller", "operator.itemgetter"),
        *("_operator.attrgetter", "_operator.methodcaller", "_operator.itemgetter", "types.CodeType"),
        *("types.FunctionType", "logging.config.dictConfig", "logging.config.fileConfig"),
        *("logging.config.listen", "dill.load", "dill.loads", "dill._dill.load", "dill._dill.loads"),
        *("dill._dill._create_code", "dill._dill._import_module", "cloudpickle.load", "cloudpickle.loads"),
        *("cloudpickle.cloudpickle.load", "cloudpickle.cloudpickle.loads"),
        *("cloudpickle.cloudpickle.subimport", "joblib.load", "joblib.numpy_pickle.load"),
        *("pandas.read_pickle", "pandas.io.pickle.read_pickle", "pandas.eval", "numpy.load"),
        *("numpy.lib.npyio.load", "numpy.lib._npyio_impl.load", "requests.get", "requests.post"),
        *("requests.request", "torch.load", "torch.serialization.load", "torch.serialization._load"),
        *("torch.serialization._legacy_load", "torch.jit.load", "torch.jit._serialization.load"),
        *("torch.jit.unsupported_tensor_ops.execWrapper", "torch.package.PackageImporter"),
        *("torch.ops.load_library", "torch._ops._Ops.load_library", "torch._dynamo.guards.GuardBuilder"),
        "torch._inductor.codecache.compile_file",
        "torch.fx.experimental.symbolic_shapes.ShapeEnv.evaluate_guards_expression",
        "torch.utils._config_module.ConfigModule.load_config",
        "torch.utils.data.datapipes.utils.decoder.basichandlers",
    }
)
"""Single ones, of modules that hold other things, too."""

_REACHED = frozenset(
    {
        *("os", "posix", "sys", "subprocess", "builtins", "importlib", "ctypes", "shutil", "runpy"),
        *("socket", "pty", "pickle"),
    }
)
"""Modules that are found as an attribute of nearly any other module, whatever underscores stand before them."""

_INSIDES = frozenset(
    {
        *("__import__", "__builtins__", "__builtin__", "__globals__", "__subclasses__", "__getattribute__"),
        *("__code__", "__loader__", "__spec__"),
    }
)
"""What leads from any object to the interpreter."""

_LONGEST = max(map(len, _MODULES | _FUNCTIONS)) + 1
