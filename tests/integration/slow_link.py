"""A TCP link that can be slow: bytes a second and a delay, in front of a server."""
import asyncio
import threading

PIECE = 16 << 10


class SlowLink:
    """Listens on a port of its own and passes everything on to `target` (host:port). `rate` and `delay` may be changed
    at any time: bytes a second in either direction (0: as fast as it goes), seconds before each answer."""

    def __init__(self, target, rate=0, delay=0.0):
        host, _, port = target.rpartition(":")
        self.target = (host.strip("[]"), int(port))
        self.rate = rate
        self.delay = delay
        self.sent = 0  # Bytes towards the server.
        self._loop = asyncio.new_event_loop()
        self._tasks = set()
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self._thread.start()
        started.wait()

    def _run(self, started):
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        started.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _accept(self, reader, writer):
        try:
            far_reader, far_writer = await asyncio.open_connection(*self.target)
        except OSError:
            writer.close()
            return
        await asyncio.gather(self._pass(reader, far_writer, up=True), self._pass(far_reader, writer, up=False))

    async def _pass(self, reader, writer, up):
        try:
            while piece := await reader.read(PIECE):
                if not up and self.delay:
                    await asyncio.sleep(self.delay)
                if self.rate:
                    await asyncio.sleep(len(piece) / self.rate)
                writer.write(piece)
                await writer.drain()
                if up:
                    self.sent += len(piece)
        except OSError:
            pass
        finally:
            writer.close()

    def end(self):
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
