import numpy as np
from meta_dx.cohort.examples import Examples
import inspect
print(inspect.getsource(Examples)[:2500])
