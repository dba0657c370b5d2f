"""The driver: waits for the learners, has five rounds done, and ends them all."""

from controller import controller_params

from hansa.compat.metisfl import DriverSession, ServerParams, TerminationSingals

MAX_LEARNERS = 3


def get_learner_server_params(learner_index: int) -> ServerParams:
    """Return the address that a learner has its name from."""
    return ServerParams(hostname="localhost", port=50002 + learner_index)


if __name__ == "__main__":
    session = DriverSession(
        controller=controller_params,
        learners=[get_learner_server_params(i) for i in range(MAX_LEARNERS)],
        termination_signals=TerminationSingals(federation_rounds=5),
    )
    logs = session.run()
