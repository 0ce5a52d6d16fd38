"""The state machine with a seed, as a program of its own: the same seed takes the same steps.

    python -m tests.model.soak --seed 7/2

Its last line on stdout is JSON: the examples it ran, and what it held before the last of them and after it.
"""

import argparse
import json
import random
import shutil
import sys
from pathlib import Path

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.crash.resource_limits import Peak, held
from tests.model.state_machine import Sides


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", required=True, help="any text")
    parser.add_argument("--examples", type=int, default=4, help="histories to try (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=50, help="of each at the most (default: %(default)s)")
    parser.add_argument("--keep", type=Path, help="where the directory of an object that failed is put")
    arguments = parser.parse_args()
    peak = Peak()

    class Watched(Sides):
        def teardown(self):
            failed = sys.exc_info()[0] is not None
            if failed and arguments.keep is not None:
                shutil.copytree(self.root, arguments.keep, dirs_exist_ok=True)
            super().teardown()
            peak.see(**held())

    options = settings(
        max_examples=arguments.examples,
        stateful_step_count=arguments.steps,
        phases=(Phase.generate,),  # no shrinking: that takes an hour, and the steps are printed as they are
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    run_state_machine_as_test(seed(random.Random(arguments.seed).randrange(2**32))(Watched), settings=options)
    peak.check()
    sys.stdout.write(json.dumps({"peak": peak.most}) + "\n")


if __name__ == "__main__":
    main()
