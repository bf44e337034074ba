"""What the scripts here need besides Python."""
import importlib.util
import json

# Modules that are called otherwise than the packages that they come in.
PACKAGES = {"backpack": "backpack-for-pytorch", "torch_pruning": "torch-pruning"}


def require(*modules):
    """Ends the script where one is not installed, and prints its package as the benchmark reads it."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            print(json.dumps({"missing": PACKAGES.get(module, module)}))
            raise SystemExit
