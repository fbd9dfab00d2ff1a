"""Gradients through an inner optimisation. The package can be used independently of hierarchies:

inner = Descent(lambda w, penalty, step: loss(w) + penalty * (w @ w), SGD(0.1))
estimator = Unrolled(inner, steps=50)
estimate = estimator(lambda w, penalty: validation(w), estimator.begin(w), penalty)
penalty -= 0.01 * estimate.gradient
"""

from hrl.nested.estimate import Estimate, Estimator, OuterLoss
from hrl.nested.evolution import PES, Evolution
from hrl.nested.implicit import Implicit
from hrl.nested.inner import Descent, Inner, Iteration, State, parameters
from hrl.nested.optimisers import SGD, FunctionalAdam, RMSprop
from hrl.nested.outer import FiniteDifference, Guard, Longer, Outer
from hrl.nested.solvers import ConjugateGradient, Neumann
from hrl.nested.unrolled import Unrolled

__all__ = [
    "PES",
    "SGD",
    "ConjugateGradient",
    "Descent",
    "Estimate",
    "Estimator",
    "Evolution",
    "FiniteDifference",
    "FunctionalAdam",
    "Guard",
    "Implicit",
    "Inner",
    "Iteration",
    "Longer",
    "Neumann",
    "Outer",
    "OuterLoss",
    "RMSprop",
    "State",
    "Unrolled",
    "parameters",
]
