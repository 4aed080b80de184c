"""The library as its users get it: a wheel, installed where the checkout is not, and its documented examples."""

import ast
import doctest
import importlib
import json
import os
import pkgutil
import re
import subprocess
import sys
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
import torch

import boundary_loss

ROOT = Path(__file__).resolve().parent.parent
MODULES = [f"boundary_loss.{module.name}" for module in pkgutil.iter_modules(boundary_loss.__path__)]
# What users call, so that their docstrings have an example.
WITH_EXAMPLE = [
    "Loss", "Boundary", "distance_maps", "region_wise_map", "signed_distance", "edt", "dsc", "hd95", "Schedule",
]
# After the example: where the library came from and what was imported beside its dependencies.
REPORT = """
import json
import boundary_loss
names = sorted({name.split(".")[0] for name in set(sys.modules) - before})
print(json.dumps({"file": boundary_loss.__file__, "imported": names, "loss": loss.item()}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--wheel-dir", str(folder), str(ROOT)], check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The Python of an environment that has the wheel, and torch and other packages from this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*command, str(wheel)], check=True, capture_output=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    # A .pth in a folder that a .pth names is not read, so the checkout's editable install stays out.
    (packages / "shared.pth").write_text(f"{Path(torch.__file__).parent.parent}\n")
    return python


def test_the_wheel_has_the_library_alone(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    metadata = f"boundary_loss-{boundary_loss.__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {"boundary_loss", metadata}
    packed = {name for name in names if name.startswith("boundary_loss/")}
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "boundary_loss").rglob("*.py")}
    assert packed == files | {"boundary_loss/py.typed"}


def test_the_wheel_requires_four_packages(wheel):
    archive = zipfile.ZipFile(wheel)
    (path,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    metadata = Parser().parsestr(archive.read(path).decode())
    core = [line for line in metadata.get_all("Requires-Dist") if "extra ==" not in line]
    assert {re.match(r"[\w-]+", line)[0] for line in core} == {"torch", "numpy", "scipy", "edt"}
    assert {"pipeline", "test", "monai", "nnunet"} <= set(metadata.get_all("Provides-Extra"))
    (entry,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
    assert b"boundary-loss-nnunet = boundary_loss.integrations.nnunet_command:main" in archive.read(entry)


def test_the_example_of_the_readme_runs_where_the_checkout_is_not(installed, tmp_path):
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    imports = "import sys, edt, numpy, torch, scipy.ndimage, scipy.spatial\nbefore = set(sys.modules)\n"
    (tmp_path / "example.py").write_text(imports + example + REPORT)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([installed, "example.py"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert Path(found["file"]).is_relative_to(installed.parent.parent)
    assert 0 < found["loss"] < 2
    project = {path.stem for path in ROOT.glob("*.py")} | {path.parent.name for path in ROOT.glob("*/__init__.py")}
    unwanted = {"nibabel", "pandas", "matplotlib", "tqdm", "PIL"} | (project - {"boundary_loss"})
    assert not unwanted & set(found["imported"])


# What other modules import beside, on demand.
INTEGRATIONS = {"monai.py": {"monai"}, "nnunet.py": {"nnunetv2"}}


def test_the_library_imports_its_four_dependencies_alone():
    for path in (ROOT / "boundary_loss").rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
        outside = {name.split(".")[0] for name in names} - sys.stdlib_module_names
        further = INTEGRATIONS.get(path.name, set()) if path.parent.name == "integrations" else set()
        assert outside <= {"boundary_loss", "torch", "numpy", "scipy", "edt"} | further, path


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_give_what_they_print(name):
    module = importlib.import_module(name)
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("name", WITH_EXAMPLE)
def test_what_users_call_has_an_example(name):
    (found,) = doctest.DocTestFinder(recurse=False).find(getattr(boundary_loss, name), name)
    assert found.examples


def test_the_front_door_names_what_is_there_and_every_loss():
    assert sorted(boundary_loss.__all__) == boundary_loss.__all__
    assert all(hasattr(boundary_loss, name) for name in boundary_loss.__all__)
    assert set(boundary_loss.losses.__all__) <= set(boundary_loss.__all__)
    defined = vars(boundary_loss.cross_entropy) | vars(boundary_loss.regional) | vars(boundary_loss.contour)
    losses = {n for n, found in defined.items() if isinstance(found, type) and issubclass(found, boundary_loss.Loss)}
    assert {name for name in losses if not name.startswith("_")} == set(boundary_loss.losses.__all__) - {"Batch"}


def test_the_citation_has_the_version_of_the_library():
    assert f"\nversion: {boundary_loss.__version__}\n" in (ROOT / "CITATION.cff").read_text()
