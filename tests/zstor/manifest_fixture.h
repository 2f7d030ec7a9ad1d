// The records of the worked examples in zstor/FORMAT.md.
#pragma once

#include "tests/zstor/codec_fixture.h"
#include "zstor/head.h"
#include "zstor/manifest.h"
#include "zstor/segment_manifest.h"

namespace qsfs::zstor::testing {

// 2+1, three stripes of 4096, the last one compressed; shard 1 in sequential mode; shard 2 of the
// last stripe was not stored.
inline Manifest example_manifest() {
  Manifest m;
  m.id.bytes = counting<16>(0x30);
  m.generation = 7;
  m.salt = counting<32>(0x40);
  m.data_shards = 2;
  m.total_shards = 3;
  m.stripe_size = 4096;
  m.size = 10000;
  m.label = "segment 42 data";
  m.backends = {
      {.id = counting<16>(0x60), .address = "a:9900", .name_space = "ns"},
      {.id = counting<16>(0x70), .address = "b:9900", .name_space = "ns", .sequential = true},
      {.id = counting<16>(0x80), .address = "dir:/c", .name_space = "ns"},
      {.id = counting<16>(0x90), .address = "e:9900", .name_space = "ns"}};
  m.stripes = {{.plain_len = 4096, .sealed_len = 4112},
               {.plain_len = 4096, .sealed_len = 4112},
               {.plain_len = 1808, .sealed_len = 500, .compression = Compression::kZstd}};
  m.shards = {{.backend = 0}, {.backend = 1, .sequential_key = 298}, {.backend = 2},
              {.backend = 0}, {.backend = 1, .sequential_key = 299}, {.backend = 3},
              {.backend = 0}, {.backend = 1, .sequential_key = 300}, {}};
  return m;
}

// The same, naming its key.
inline Manifest example_manifest_2() {
  Manifest m = example_manifest();
  m.key = counting<16>(0xe0);
  return m;
}

// A small whole object, for the records that hold one.
inline Manifest example_journal() {
  Manifest m = example_manifest();
  m.id.bytes = counting<16>(0x31);
  m.size = 100;
  m.label = "segment 42 journal";
  m.backends = {{.id = counting<16>(0x60), .address = "a:9900", .name_space = "ns"}};
  m.data_shards = 1;
  m.total_shards = 1;
  m.stripes = {{.plain_len = 100, .sealed_len = 116}};
  m.shards = {{.backend = 0}};
  return m;
}

inline SegmentManifest example_segment() {
  SegmentManifest s;
  s.volume = counting<16>(0x20);
  s.segment = 42;
  s.epoch = 3;
  s.previous = counting<32>(0xa0);
  s.data = example_manifest();
  s.journal = example_journal();
  s.first_lsn = 42ULL << 32;
  s.last_lsn = (42ULL << 32) + 100;
  s.first_wall = std::chrono::seconds(1'700'000'000);
  s.last_wall = std::chrono::seconds(1'700'000'060);
  s.record_count = 5;
  s.live_bytes = 9000;
  return s;
}

inline CheckpointManifest example_checkpoint() {
  return {.volume = counting<16>(0x20),
          .segment = 41,
          .epoch = 3,
          .segment_hash = counting<32>(0xa0),
          .created = std::chrono::seconds(1'700'000'000),
          .object = example_journal()};
}

inline Head example_head() {
  Head h;
  h.volume = counting<16>(0x20);
  h.generation = 9;
  h.epoch = 3;
  h.owner = counting<16>(0xc0);
  h.checkpoint = Head::Checkpoint{
      .name = "ckpt/20212223-2425-2627-2829-2a2b2c2d2e2f/0000000000000029", .segment = 41};
  h.first_segment = 40;
  h.tip = Head::Tip{.segment = 42, .hash = counting<32>(0xa0)};
  h.created = std::chrono::seconds(1'600'000'000);
  h.updated = std::chrono::seconds(1'700'000'000);
  return h;
}

}  // namespace qsfs::zstor::testing
