"""The README's shell blocks do what they say, as they stand, against the sandbox."""

import os
import re
import subprocess
from pathlib import Path

from facade import Facade, environment
from tools import BIN, need

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)


def _run(script: str, env: dict[str, str]) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=ROOT,
        env=env,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_shell_blocks_of_the_readme_work_one_after_the_other() -> None:
    need("grpcurl")
    run, *blocks = BLOCKS
    assert run == "make run\n"
    with Facade("sandbox", "--listen", "127.0.0.1:0", "--aws-listen", "127.0.0.1:0", env=environment()) as sandbox:
        # The one difference to a reader's terminal is where the sandbox listens.
        aws = sandbox.endpoint_url
        script = "".join(blocks).replace("127.0.0.1:50051", sandbox.address).replace("http://127.0.0.1:4566", aws)
        output = _run(script, environment(PATH=f"{BIN}{os.pathsep}{os.environ['PATH']}"))
    assert '"Status": "SUCCEEDED"' in output
    assert "my-first-bucket" in output
    assert '"OWNER": "arn:aws:iam::123456789012:role/team"' in output
    assert "servicecatalog.v1.ProvisioningService" in output
    assert output.count("RECORD_STATUS_SUCCEEDED") >= 2  # the owner changes, by grpcurl and by the example


def test_the_commands_of_the_ready_block_can_be_pasted() -> None:
    need("grpcurl")
    with Facade(
        "sandbox",
        "--listen",
        "127.0.0.1:0",
        "--aws-listen",
        "127.0.0.1:0",
        "--record-seconds",
        "0.2",
        env=environment(),
    ) as sandbox:
        text = "".join(sandbox.output)
        commands = text[text.index("# provision") : text.index("the same without")].replace("\n# ", "\nsleep 1\n# ")
        output = _run(commands, environment(PATH=f"{BIN}{os.pathsep}{os.environ['PATH']}"))
    assert '"recordType": "UPDATE_PROVISIONED_PRODUCT"' in output
    assert '"status": "RECORD_STATUS_SUCCEEDED"' in output
