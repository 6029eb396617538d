"""Connections of all processes with the first one, by which each gets to know who is lost."""

import secrets
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass

import torch.distributed as dist

ANSWER_S = 3.0
"""How long a process has to say that it is there."""


@dataclass(frozen=True)
class Loss:
    """Which processes were lost, none if that is unknown, and whether they ended or are silent."""

    ranks: tuple[int, ...]
    ended: bool


class Lifeline:
    """Connections of all processes with the first one, by which each gets to know who is lost.

    A process that ends without a word, however it ends, has its connection closed by the system.
    Only the first loss counts, for those who lost somebody end as well.

    Args:
        rank: of this process.
        world_size: number of processes.
    """

    def __init__(self, rank: int, world_size: int):
        self.rank, self.world_size = rank, world_size
        self.loss: Loss | None = None
        self.lost = threading.Event()
        self._server: socket.socket | None = None
        self._others: dict[int, socket.socket] = {}
        self._answered: set[int] = set()
        self._noting, self._calling = threading.Lock(), threading.Lock()
        self._closing = False

    def open(self, store: dist.Store, host: str) -> None:
        """Connect with the first process; where the network lets nobody, go without.

        Args:
            store: shared by all processes.
            host: where the first process is.
        """
        if self.rank == 0:
            self._server = server = socket.create_server(("", 0))
            token = secrets.token_hex(16)
            store.set("lifeline", f"{server.getsockname()[1]} {token}")
            threading.Thread(target=self._accept, args=(server, token), daemon=True).start()
            return
        port, token = store.get("lifeline").decode().split()
        with suppress(OSError):
            connection = socket.create_connection((host, int(port)), timeout=ANSWER_S)
            self._send(connection, f"{token} {self.rank}")
            self._follow(0, connection)

    def close(self, regular: bool) -> None:
        """Close all connections; a regular end is no loss to the others."""
        self._closing = True
        for connection in [*self._others.values()]:
            if regular:
                self._send(connection, "bye")
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        if self._server is not None:
            self._server.close()

    def asked(self, ended: bool) -> Loss | None:
        """Return who was lost, after some seconds, as far as the processes can find out.

        Args:
            ended: whether a process has ended, so that its connection must have been closed.
        """
        self.lost.wait(ANSWER_S if ended else 0)
        if self.loss is None:
            self._call_roll()
        return self.loss

    def _call_roll(self) -> None:
        """Find out who does not answer; if all do, one of them stands still nevertheless."""
        if self.rank != 0:
            if 0 in self._others:
                self._send(self._others[0], "late")
                self.lost.wait(2 * ANSWER_S)
                self._note((0,), ended=False)
            return
        with self._calling:
            if self.loss is not None:
                return
            self._answered.clear()
            self._tell("ping")
            until = time.monotonic() + ANSWER_S
            while self._others.keys() - self._answered and time.monotonic() < until:
                time.sleep(0.02)
            self._note(tuple(self._others.keys() - self._answered), ended=False)

    def _accept(self, server: socket.socket, token: str) -> None:
        """Let in those who know the token, which the store tells to all processes."""
        with server, suppress(OSError):  # which a closed one raises
            while len(self._others) < self.world_size - 1:
                connection, _ = server.accept()
                with suppress(OSError, ValueError):
                    connection.settimeout(ANSWER_S)
                    first = b""
                    while not first.endswith(b"\n") and len(first) < 80:
                        first += connection.recv(1) or b"\n"
                    word, rank = first.decode().split()
                    if secrets.compare_digest(word.encode(), token.encode()):
                        self._follow(int(rank), connection)

    def _follow(self, rank: int, connection: socket.socket) -> None:
        connection.settimeout(None)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._others[rank] = connection
        threading.Thread(target=self._listen, args=(rank, connection), daemon=True).start()

    def _listen(self, rank: int, connection: socket.socket) -> None:
        """Hear a process until it ends."""
        try:
            with connection.makefile("r") as lines:
                for line in lines:
                    word, *ranks = line.split()
                    if word == "bye":
                        return
                    if word == "ping":
                        self._send(connection, "pong")
                    elif word == "pong":
                        self._answered.add(rank)
                    elif word == "late":  # another thread, for this one hears the answer
                        threading.Thread(target=self._call_roll, daemon=True).start()
                    else:
                        self._note(tuple(map(int, ranks)), ended=word == "ended")
        except ConnectionResetError:
            pass
        except OSError:  # of the network: the process may be there
            return
        if not self._closing:
            self._note((rank,), ended=True)

    def _note(self, ranks: tuple[int, ...], ended: bool) -> None:
        """Note the first loss; the first process passes it on."""
        with self._noting:
            if self.loss is not None:
                return
            self.loss = Loss(ranks, ended)
        if self.rank == 0:
            self._tell(" ".join(["ended" if ended else "silent", *map(str, ranks)]))
        self.lost.set()

    def _tell(self, text: str) -> None:
        for connection in [*self._others.values()]:
            self._send(connection, text)

    @staticmethod
    def _send(connection: socket.socket, text: str) -> None:
        with suppress(OSError):  # its end shows elsewhere
            connection.sendall(f"{text}\n".encode())
