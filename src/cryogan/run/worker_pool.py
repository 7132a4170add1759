"""Worker processes: started, watched, asked to stop, and missed at once when they are lost.

Each has a connection of its own to this process, through which it gives its outcome, and is asked
to stop: by a message, or by the end of this process, which closes it. Processes share no lock, so
that one that is killed blocks no other.
"""

import multiprocessing
import os
import pickle
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from cryogan.errors import InputError, RunError
from cryogan.run.processes import needs_script, script_left_out, unpickled
from cryogan.run.signals import StopRequests, held_back
from cryogan.run.worker import optimise

_LOOK_S = 0.5
_LAST_S = 10.0  # that a process may take to end once it has given its outcome
_ALONE_S = 15.0  # that a process may go on without its parent, until the next record at most


@dataclass
class _Worker:
    """A process, the connection to it, and what it has ended with."""

    process: SpawnProcess
    connection: Connection
    ended: bool = False
    stopped_by: int | None = None
    error: Exception | None = None
    lost: str | None = None

    def look(self) -> None:
        """Take what the process has sent, or note that it is gone."""
        if self.ended:
            return
        gone = not self.process.is_alive()
        try:
            if self.connection.poll():
                self.stopped_by, self.error = self.connection.recv()
                self.ended = True
                return
        except (EOFError, OSError):  # closed without a word
            self.process.join()
            gone = True
        if gone:
            self.ended, self.lost = True, _how(self.process.exitcode)

    def ask_to_stop(self) -> None:
        try:
            self.connection.send(None)
        except OSError:
            return  # it has ended


def run_workers(sent: Sequence[bytes], show: Callable[[], None]) -> signal.Signals | None:
    """Run pickled jobs in a process each, until all have ended.

    If one fails or is lost, or this process is interrupted, the others save their work and stop.

    Args:
        sent: the jobs, by `processes.pickled`.
        show: called about twice a second; if it fails, the jobs are stopped.

    Returns:
        The signal that stopped the work, to this process or to one of the others; None if none did.

    Raises:
        InputError: from a job.
        RunError: a process was lost.
        Interrupted, KeyboardInterrupt: a second signal; the processes have been ended.
    """
    with_script = any(map(needs_script, sent))
    stopped_by: signal.Signals | None = None
    with _started(sent, with_script) as workers:
        try:
            while not all(worker.ended for worker in workers):
                for worker in workers:
                    worker.look()
                if any(worker.error or worker.lost or worker.stopped_by for worker in workers):
                    break
                show()
                _wait(workers)
        except KeyboardInterrupt as interrupt:
            stopped_by = getattr(interrupt, "signal", signal.SIGINT)
        finally:  # an error of `show` too stops the others, which save their work
            _stop(workers)
    for worker in workers:
        if worker.error is not None:
            raise worker.error
    lost = [worker.lost for worker in workers if worker.lost is not None]
    if lost and stopped_by is None:
        if with_script and lost[0] == "exit code 1":
            raise InputError(_LOST_WITH_SCRIPT)
        raise RunError(_LOST.format(how=lost[0], advice=_ADVICE.get(lost[0], _NO_ADVICE)))
    told = next((worker.stopped_by for worker in workers if worker.stopped_by), None)
    return stopped_by or (None if told is None else signal.Signals(told))


_LOST = (
    "A worker process was lost ({how}{advice}); what was saved until then is kept: run the same "
    "command again to resume."
)
_ADVICE = {
    "SIGKILL": ", as the system ends what takes too much memory: ask for more, or give a smaller "
    "box or batch",
    "SIGXCPU": ", the limit of CPU time",
}
_NO_ADVICE = ""
_LOST_WITH_SCRIPT = (
    "A worker process was lost; a script that uses classes of its own must call cryogan inside "
    "`if __name__ == '__main__':`, or have them in a module that can be imported."
)


def _how(exit_code: int | None) -> str:
    """What a process has ended by."""
    if exit_code is not None and exit_code < 0:
        try:
            return signal.Signals(-exit_code).name
        except ValueError:
            return f"signal {-exit_code}"
    return f"exit code {exit_code}"


@contextmanager
def _started(sent: Sequence[bytes], with_script: bool) -> Iterator[list[_Worker]]:
    """The processes; none is left when the block ends."""
    context = multiprocessing.get_context("spawn")
    workers: list[_Worker] = []
    try:
        with held_back():
            resource_tracker.ensure_running()  # which changes the mask: before the next block
        with held_back(), script_left_out(unless=with_script):
            for data in sent:
                ours, its = context.Pipe()
                process = context.Process(target=_work, args=(its, data))
                process.start()
                its.close()
                workers.append(_Worker(process, ours))
        yield workers
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.join()
            worker.connection.close()
            worker.process.close()


def _stop(workers: Sequence[_Worker]) -> None:
    """Ask all to stop, and wait until they have saved their work."""
    for worker in workers:
        worker.ask_to_stop()
    while not all(worker.ended for worker in workers):
        _wait(workers)
        for worker in workers:
            worker.look()
    for worker in workers:
        worker.process.join(_LAST_S)


def _wait(workers: Sequence[_Worker]) -> None:
    """Until something is heard of those that have not ended, half a second at most."""
    busy = [worker for worker in workers if not worker.ended]
    wait([*(worker.process.sentinel for worker in busy), *(w.connection for w in busy)], _LOOK_S)


def _work(connection: Connection, data: bytes) -> None:
    """`optimise` in a worker process; it stops if its parent asks, or has ended, or by a signal."""
    threading.Thread(target=_end_without_parent, daemon=True).start()
    error: Exception | None = None
    with StopRequests() as requests:

        def should_stop() -> bool:
            return requests.received is not None or connection.poll()

        try:
            optimise(unpickled(data), should_stop=should_stop)
        except Exception as caught:
            error = caught
    try:
        connection.send((requests.received, None if error is None else _sendable(error)))
    except OSError:  # the parent was killed
        os._exit(1)


def _end_without_parent() -> None:
    """End this process soon after its parent: in large boxes the next record may be far."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        time.sleep(_ALONE_S)
        os._exit(1)


def _sendable(error: Exception) -> Exception:
    """An error with its traceback, which is not sent with it; its text where it cannot be sent."""
    told = "".join(traceback.format_exception(error))
    error = error.with_traceback(None)
    error.__cause__ = error.__context__ = None
    error.add_note(f"\nin a worker process:\n{told}")
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(told)
    return error
