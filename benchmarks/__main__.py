import asyncio, tempfile, sys
from pathlib import Path
import uvloop
from .runner import run
from .scenario import Conditions, medians
from .scenarios import SCENARIOS
with tempfile.TemporaryDirectory() as f:
    o = uvloop.run(run([s for s in SCENARIOS if s.name in sys.argv], Conditions(Path(f), True, Path("/work/shared/reference/prototype.py"), Path("/work/wt/base")), 2))
print(medians(o))
