import os
from pathlib import Path

from hypothesis import HealthCheck, settings

# Programs that tests start import `tests.…` and the package as the tests do.
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, (str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH")))
)

# The machine that runs the suite is shared: an example may be slow without being wrong.
settings.register_profile("lakebed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("lakebed")
