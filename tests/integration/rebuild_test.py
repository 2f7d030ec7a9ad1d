"""All manifests are lost; shard counts change: on real servers and processes."""
import json
import shutil

from harness import BIN, Server, World, main, run, wait_until

QUIET = 'archive.scrub_interval = "0"'


def fill(world, mib, seed=1):
    """Files of a MiB; gives name -> digest of each."""
    import hashlib
    import random
    noise = random.Random(seed)
    digests = {}
    for i in range(mib):
        data = noise.randbytes(1 << 20)
        name = f"file-{seed}-{i}"
        (world.mount_point / name).write_bytes(data)
        digests[name] = hashlib.sha256(data).hexdigest()
    run(BIN / "qsfs", "sync", "--remote", world.mount_point)
    return digests


def verify(world, digests):
    import hashlib
    run(BIN / "qsfs", "evict", world.mount_point)
    assert sorted(path.name for path in world.mount_point.iterdir()) == sorted(digests)
    for name, digest in digests.items():
        assert hashlib.sha256((world.mount_point / name).read_bytes()).hexdigest() == digest, name


def wipe(servers):
    for server in servers:
        server.kill()
        shutil.rmtree(server.directory)
        server.start()


def rebuild(world, target):
    done = run(BIN / "qsfs", "check", "--rebuild-manifests", "--json", target, check=False)
    assert done.returncode in (0, 3), done.stdout + done.stderr
    return json.loads(done.stdout)


def all_meta_backends_are_wiped_and_the_machine_is_lost():
    with World(data=6, meta=3, k=4, n=6, extra_config=QUIET) as world:
        world.mount()
        digests = fill(world, 24)
        digests |= fill(world, 8, seed=2)
        world.terminate()
        shutil.rmtree(world.data_dir)
        wipe(world.meta)
        # Nobody may mistake this for a new volume.
        done = run(BIN / "qsfs-fs", "--config", world.config, "--data-dir", world.data_dir, world.mount_point, check=False)
        assert done.returncode == 2 and "--rebuild-manifests" in done.stderr, done.stderr
        shutil.rmtree(world.data_dir, ignore_errors=True)
        report = rebuild(world, world.config)
        assert report["verdict"] == "ok" and report["head_restored"], report
        assert report["segments_restored"] >= 2, report
        world.mount("--recover")
        verify(world, digests)
        digests |= fill(world, 4, seed=3)
        verify(world, digests)


def all_meta_backends_are_wiped_under_a_mounted_volume():
    with World(data=6, meta=3, k=4, n=6, extra_config=QUIET) as world:
        world.mount()
        digests = fill(world, 16)
        wipe(world.meta)
        report = rebuild(world, world.mount_point)
        assert report["verdict"] == "ok", report
        assert report["head_restored"] or report["manifests_restored"] > 0, report
        digests |= fill(world, 4, seed=2)
        world.terminate()
        world.mount("--recover", data_dir=world.home / "recovered")
        verify(world, digests)


def a_meta_backend_that_comes_back_empty_is_filled_again():
    with World(data=6, meta=3, k=4, n=6, extra_config=QUIET) as world:
        world.mount()
        digests = fill(world, 8)
        wait_until("the backends were seen", lambda: (world.data_dir / "heal").exists())
        wipe([world.meta[1]])
        wait_until("its copies are back", lambda: world.status()["meta_check"]["values_checked"] > 0
                   and world.status()["meta_check"]["state"] == "idle")
        # It alone and one other are a majority.
        world.meta[0].kill()
        world.terminate()
        world.mount("--recover", data_dir=world.home / "recovered")
        verify(world, digests)


def shard_counts_change_and_what_is_stored_follows():
    with World(data=6, meta=3, k=4, n=6, extra_config=QUIET) as world:
        world.mount()
        digests = fill(world, 24)
        text = world.config.read_text()
        world.config.write_text(text.replace("minimal_shards = 4", "minimal_shards = 2"))
        run(BIN / "qsfs", "reload", world.mount_point)
        done = run(BIN / "qsfs", "repair", "--recode", "--wait", "--json", world.mount_point)
        report = json.loads(done.stdout)
        assert report["recoded"] and report["objects_recoded"] >= 2, report
        assert world.status()["recode"]["state"] == "idle"
        done = run(BIN / "qsfs", "check", "--read-data", world.mount_point)
        # Two of six are enough by now.
        for server in world.data[:4]:
            server.kill()
        verify(world, digests)
        world.terminate()
        world.mount("--recover", data_dir=world.home / "recovered")
        verify(world, digests)


def an_older_state_than_the_receipt_is_refused():
    with World(data=4, meta=1, k=2, n=4, extra_config=QUIET) as world:
        world.mount()
        fill(world, 2)
        world.meta[0].kill()
        shutil.copytree(world.meta[0].directory, world.home / "older")
        world.meta[0].start()
        digests = fill(world, 2, seed=2)
        assert digests
        receipt = world.status()["receipt"]["text"]
        world.terminate()
        world.meta[0].kill()
        shutil.rmtree(world.meta[0].directory)
        shutil.copytree(world.home / "older", world.meta[0].directory)
        world.meta[0].start()
        fresh = world.home / "fresh"
        words = [BIN / "qsfs-fs", "--config", world.config, "--data-dir", fresh, "--recover"]
        done = run(*words, "--receipt", receipt, world.mount_point, check=False)
        assert done.returncode == 1 and "rolled back" in done.stderr, done.stderr
        done = run(*words, "--receipt", "nonsense", world.mount_point, check=False)
        assert done.returncode == 2, done.stderr


def a_new_volume_does_not_take_over_an_old_one():
    with World(data=4, meta=1, k=2, n=4, extra_config=QUIET) as world:
        # Begun while the meta backend was away: only later does it learn that the volume exists.
        world.meta[0].kill()
        done = run(BIN / "qsfs-fs", "--config", world.config, "--data-dir", world.home / "b", world.mount_point, check=False)
        assert done.returncode != 0, "an empty directory, and nobody knows whether the volume exists"
        world.meta[0].start()
        other = world.home / "other"
        other.mkdir()
        run(BIN / "qsfs-fs", "--config", world.config, "--data-dir", world.home / "b", other)
        try:
            world.mount()
            digests = fill(world, 4)
            (other / "mine").write_text("written on the other machine")
            done = run(BIN / "qsfs", "sync", "--remote", other, check=False)
            assert done.returncode != 0 and "--recover" in done.stdout + done.stderr, done.stdout + done.stderr
            status = json.loads(run(BIN / "qsfs", "status", "--json", other, check=False).stdout)
            assert status["verdict"] == "readonly", status["verdict"]
            # What it has stays readable there.
            assert (other / "mine").read_text() == "written on the other machine"
        finally:
            run(BIN / "qsfs", "umount", other)
        digests |= fill(world, 2, seed=2)
        verify(world, digests)


if __name__ == "__main__":
    main([all_meta_backends_are_wiped_and_the_machine_is_lost, all_meta_backends_are_wiped_under_a_mounted_volume,
          a_meta_backend_that_comes_back_empty_is_filled_again, shard_counts_change_and_what_is_stored_follows,
          an_older_state_than_the_receipt_is_refused, a_new_volume_does_not_take_over_an_old_one])
