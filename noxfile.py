"""Every check, each in an environment of its own: `nox --list` tells what there is."""

import pathlib
import zipfile

import nox

BACKENDS = {"tensorflow": "tensorflow-cpu", "jax": "jax", "torch": "torch"}
LOWEST_KERAS = "keras==3.12.0"
# Tests of scripts around the examples, whose training is tested on every backend: these are run on
# the one that starts and compiles in the least time.
SCRIPTS = (
    "tests/benchmarks",
    "tests/examples/test_starts.py",
    "tests/examples/test_notebook.py",
)

nox.needs_version = ">=2024.4.15"
nox.options.sessions = ["lint", "tests", "exports", "lowest", "docs", "package"]

each_backend = nox.parametrize("backend", list(BACKENDS), ids=list(BACKENDS))


def install(session, backend, extra, constraints="constraints.txt"):
    """The package with one extra, and one backend and no other."""
    # What is imported is compiled then, once for all processes; the rest, thousands of files, need
    # not be.
    session.install("--no-compile", "--constraint", constraints, BACKENDS[backend], f".[{extra}]")
    session.env.update(
        KERAS_BACKEND=backend, TF_CPP_MIN_LOG_LEVEL="3", PYTHONDONTWRITEBYTECODE=None
    )


def compiling_little(session):
    """The variables with which XLA compiles fast, and nothing twice."""
    return {
        "XLA_FLAGS": "--xla_cpu_use_fusion_emitters=false",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_COMPILATION_CACHE_DIR": str(pathlib.Path(session.create_tmp()).absolute()),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def run_tests(session, *arguments):
    """Two processes of one thread each: threads of small operations only get in their way."""
    session.env.update(OMP_NUM_THREADS="1", TF_NUM_INTEROP_THREADS="1", TF_NUM_INTRAOP_THREADS="1")
    # Half of the tests each, in their order, since what is compiled for one serves the next of its
    # file; and whoever is done first takes from the other.
    session.run("pytest", "-n", "2", "--dist", "worksteal", *arguments, *session.posargs)


@nox.session
@each_backend
def tests(session, backend):
    """The test suite on one backend: nox -s 'tests(jax)' -- -k gradient."""
    # Keras exports from JAX by TensorFlow only, which is not to be there: see `exports`.
    extras = {"jax": "examples", "torch": "examples,export,notebook"}
    install(session, backend, f"{extras.get(backend, 'examples,export')},test")
    # What one process has compiled, the others need not compile again; and most of it runs but
    # once, so that optimizing it takes longer than it saves. Of the two generators of code that XLA
    # has for fused operations, the older one takes half the time for small programs.
    session.env.update(compiling_little(session))
    if backend == "tensorflow":
        session.env["XLA_FLAGS"] += " --xla_backend_optimization_level=0"
    ignored = () if backend == "torch" else SCRIPTS
    run_tests(session, *(f"--ignore={path}" for path in ignored))


@nox.session
@each_backend
def coverage(session, backend):
    """Lines and branches that the tests run on one backend: nox -s coverage coverage_report."""
    install(session, backend, "examples,test" if backend == "jax" else "examples,export,test")
    session.install("--constraint", "constraints.txt", "pytest-cov")
    session.env["COVERAGE_FILE"] = f".coverage.{backend}"
    run_tests(
        session,
        *(f"--ignore={path}" for path in (*SCRIPTS, "tests/examples")),
        *("--cov=keras_wcond", "--cov-branch", "--cov-report="),
    )


@nox.session
def coverage_report(session):
    """Coverage on all backends together."""
    session.install("--constraint", "constraints.txt", "coverage")
    session.run("coverage", "combine", "--keep")
    session.run("coverage", "report", "--show-missing", "--skip-covered", "--fail-under=97")


@nox.session
def mutations(session):
    """Mutants of conditioners, kernels and linear algebra: nox -s mutations."""
    install(session, "torch", "fuzz")
    session.install("--constraint", "constraints.txt", "mutmut")
    # The same examples of property-based tests for every mutant.
    session.env.update(CI="1", OMP_NUM_THREADS="1")
    session.run("python", "-m", "tests.mutations", *session.posargs)


@nox.session
def exports(session):
    """The tests of exports from JAX, which Keras makes by TensorFlow."""
    install(session, "jax", "test")
    session.install("--no-compile", "--constraint", "constraints.txt", BACKENDS["tensorflow"])
    session.run("pytest", "tests/models/test_export.py", *session.posargs)


@nox.session
def lowest(session):
    """The test suite on the lowest version of Keras that the package declares."""
    install(session, "torch", "quickstart,test")
    session.install("--no-deps", LOWEST_KERAS)
    ignored = (*SCRIPTS, "tests/examples", "tests/many_devices")
    # PyTorch compiles the same programs as beside the newest Keras, which takes minutes.
    compiled = (
        "tests/layers/test_training.py::test_fit_compiled",
        "tests/layers/test_deferred_execution.py::test_torch_compile_with_dynamic_shapes",
    )
    run_tests(
        session,
        *(f"--ignore={path}" for path in ignored),
        *(f"--deselect={test}" for test in compiled),
    )


@nox.session
@each_backend
def fuzz(session, backend):
    """Configurations drawn at random, and their record: nox -s 'fuzz(jax)' -- --count 300."""
    install(session, backend, "fuzz")
    session.env.update(OMP_NUM_THREADS="1", TF_NUM_INTEROP_THREADS="1", TF_NUM_INTRAOP_THREADS="1")
    # JAX compiles each operation, which takes longer than the operation itself.
    session.env.update(compiling_little(session))
    session.run("python", "-m", "tests.fuzzing", *session.posargs)


@nox.session
@each_backend
def quickstart(session, backend):
    """The quickstart example on one backend: nox -s 'quickstart(jax)'."""
    install(session, backend, "quickstart")
    session.run("python", "examples/quickstart.py", *session.posargs)


@nox.session
def notebook(session):
    """Executes the notebook's script and writes the notebook."""
    install(session, "torch", "notebook")
    session.env["OMP_NUM_THREADS"] = "1"
    with session.chdir("examples/notebooks"):
        session.run("jupytext", "--to", "ipynb", "--execute", "convert_a_model.py")
        pathlib.Path("folded.keras").unlink()


@nox.session
@each_backend
def example(session, backend):
    """One of the other examples on one backend: nox -s 'example(jax)' -- nerf --epochs 3."""
    if not session.posargs:
        session.error("Name an example: cnn, vit, nerf, shape or deep.")
    name, *arguments = session.posargs
    install(session, backend, "examples")
    session.run("python", f"examples/{name}.py", *arguments)


@nox.session
@each_backend
def conversions(session, backend):
    """Whole models, conditioned and folded: nox -s 'conversions(jax)' -- --output docs/results."""
    install(session, backend, "benchmarks")
    session.run("python", "-m", "benchmarks.pages.conversions", *session.posargs)


@nox.session
@each_backend
def methods(session, backend):
    """What each method does and costs, into the guide: nox -s 'methods(torch)'."""
    install(session, backend, "quickstart")
    session.run("python", "-m", "benchmarks.pages.methods", *session.posargs)


@nox.session
@each_backend
def curvature(session, backend):
    """The loss Hessian over training: nox -s 'curvature(torch)' -- --output docs/results."""
    install(session, backend, "quickstart")
    session.run("python", "-m", "benchmarks.pages.curvature", *session.posargs)


@nox.session
@each_backend
def comparison(session, backend):
    """All methods, tuned alike, and the report: nox -s 'comparison(jax)' -- --families deep."""
    install(session, backend, "examples")
    session.run("python", "-m", "benchmarks.comparison.run", *session.posargs)
    session.run("python", "-m", "benchmarks.comparison.step_times")
    for command in ("equal_seconds", "first_half"):
        session.run("python", "-m", f"benchmarks.comparison.{command}", *session.posargs)
    documents = ("README.md", "docs/index.md", "docs/how-to/choose-a-method.md")
    session.run("python", "-m", "benchmarks.comparison.report", "--documents", *documents)


@nox.session
@each_backend
def crosscheck(session, backend):
    """A part of the comparison on another backend: nox -s 'crosscheck(torch)'."""
    install(session, backend, "examples")
    session.run("python", "-m", "benchmarks.comparison.crosscheck", *session.posargs)


@nox.session
@each_backend
def overhead(session, backend):
    """What conditioning costs beside its baselines: nox -s 'overhead(torch)' -- --budget 20."""
    install(session, backend, "benchmarks,quickstart")
    if backend == "jax":
        session.install("--constraint", "constraints.txt", "flax")
    session.run("python", "-m", "benchmarks.overhead.run", *session.posargs)
    session.run("python", "-m", "benchmarks.overhead.run", "--memory")
    session.run("python", "-m", "benchmarks.overhead.growth")
    session.run("python", "-m", "benchmarks.overhead.products")
    session.run("python", "-m", "benchmarks.overhead.report")


@nox.session
@each_backend
def interchange(session, backend):
    """Writes the file by which the tests check that backends read each other's models."""
    install(session, backend, "test")
    session.run("python", "-m", "tests.interchange")


@nox.session
def docs(session):
    """The documentation as a site, with warnings as errors: nox -s docs -- serve."""
    session.install("--no-compile", "--constraint", "constraints.txt", ".[docs]")
    session.env.update(KERAS_BACKEND="jax", NO_MKDOCS_2_WARNING="1")
    session.run("mkdocs", *(session.posargs or ("build",)))


@nox.session
def package(session):
    """Wheel and sdist in dist/, built twice alike: nox -s package -- [expected version]."""
    session.install("--constraint", "constraints.txt", "build", "twine")
    dist, again = pathlib.Path("dist"), pathlib.Path(session.create_tmp()).absolute()
    for folder in (dist, again):
        for old in (*folder.glob("*.whl"), *folder.glob("*.tar.gz")):
            old.unlink()
        session.run("python", "-m", "build", "--outdir", str(folder))
    built = sorted(path.name for path in dist.glob("*"))
    if not built:
        return  # With `--install-only`, nothing is built.
    for name in built:
        if (dist / name).read_bytes() != (again / name).read_bytes():
            session.error(f"Two builds of {name} differ.")
    session.run("twine", "check", "--strict", *(str(dist / name) for name in built))
    (wheel,) = dist.glob("*.whl")
    if session.posargs and session.posargs[0] != wheel.name.split("-")[1]:
        session.error(f"Expected version {session.posargs[0]}. Received: {wheel.name}")
    names = zipfile.ZipFile(wheel).namelist()
    strangers = [name for name in names if not name.startswith(("keras_wcond/", "keras_wcond-"))]
    if strangers or "keras_wcond/py.typed" not in names:
        session.error(f"Expected the package and nothing else in the wheel. Received: {names}")


@nox.session
@each_backend
def wheel(session, backend):
    """The built wheel beside one backend: imports it, and prints the time of the import."""
    (path,) = pathlib.Path("dist").glob("*.whl")
    session.install("--constraint", "constraints.txt", BACKENDS[backend], str(path))
    session.env.update(KERAS_BACKEND=backend, TF_CPP_MIN_LOG_LEVEL="3")
    code = (
        "import time; t = [time.perf_counter()]; import keras; t.append(time.perf_counter()); "
        "import keras_wcond; t.append(time.perf_counter()); "
        "keras_wcond.ConditionedDense(2).build((None, 3)); "
        "print(f'import keras {t[1] - t[0]:.2f} s, keras_wcond {t[2] - t[1]:.2f} s more')"
    )
    with session.chdir(session.create_tmp()):  # So that the wheel is imported, not the sources.
        for _ in range(3):
            session.run("python", "-c", code)


@nox.session
def lint(session):
    """Style and types."""
    session.install("--constraint", "constraints.txt", "ruff", "mypy", "keras", "numpy", "rich")
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    session.run("mypy")
