// Configurations that several tests start from.
#pragma once

#include <string>
#include <string_view>

namespace qsfs::zstor {

inline constexpr std::string_view kTestDataKey =
    "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
inline constexpr std::string_view kTestMetaKey =
    "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeffe0e1e2e3e4e5e6e7e8e9eaebecedeeef";

// As Zero-OS writes it: this order of keys and tables, all of them present, an empty password for
// none.
inline constexpr std::string_view kZeroOsConfig = R"(minimal_shards = 2
expected_shards = 4
redundant_groups = 0
redundant_nodes = 0
max_zdb_data_dir_size = 32
zdb_data_dir_path = "/data/data/zdbfs-data"
socket = "/var/run/zstor.sock"
prometheus_port = 9100
zdbfs_mountpoint = "/mnt"

[encryption]
  algorithm = "AES"
  key = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"

[meta]
  type = "zdb"
  [meta.config]
    prefix = "someprefix"
    [meta.config.encryption]
      algorithm = "AES"
      key = "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeffe0e1e2e3e4e5e6e7e8e9eaebecedeeef"

    [[meta.config.backends]]
      address = "[2a10:b600:1::0cc4:7a30:65b5]:9900"
      namespace = "12-340-qsfsmeta1"
      password = "hunter2-meta"

    [[meta.config.backends]]
      address = "[2a10:b600:1::0cc4:7a30:65b6]:9900"
      namespace = "12-341-qsfsmeta2"
      password = "hunter2-meta"

    [[meta.config.backends]]
      address = "[2a10:b600:1::0cc4:7a30:65b7]:9900"
      namespace = "12-342-qsfsmeta3"
      password = "hunter2-meta"

    [[meta.config.backends]]
      address = "[2a10:b600:1::0cc4:7a30:65b8]:9900"
      namespace = "12-343-qsfsmeta4"
      password = "hunter2-meta"

[[groups]]

  [[groups.backends]]
    address = "[2a10:b600:1::0cc4:7a30:65b5]:9900"
    namespace = "12-344-qsfsdata1"
    password = "hunter2-data"

  [[groups.backends]]
    address = "[2a10:b600:1::0cc4:7a30:65b6]:9900"
    namespace = "12-345-qsfsdata2"
    password = "hunter2-data"

  [[groups.backends]]
    address = "[2a10:b600:1::0cc4:7a30:65b7]:9900"
    namespace = "12-346-qsfsdata3"
    password = "hunter2-data"

  [[groups.backends]]
    address = "[2a10:b600:1::0cc4:7a30:65b8]:9900"
    namespace = "12-347-qsfsdata4"
    password = ""

[compression]
  algorithm = "snappy"
)";

// Nothing more than must be there.
inline constexpr std::string_view kSmallestConfig = R"(minimal_shards = 2
expected_shards = 3
[encryption]
key = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
[meta.config]
prefix = "p"
backends = [{address = "10.0.0.1:9900", namespace = "meta"}]
[[groups]]
backends = [{address = "10.0.0.1:9900"}, {address = "10.0.0.2:9900"}, {address = "dir:/srv/c"}]
)";

// `text` with the first `from` replaced by `to`.
inline std::string replaced(std::string_view text, std::string_view from, std::string_view to) {
  std::string result(text);
  result.replace(result.find(from), from.size(), to);
  return result;
}

}  // namespace qsfs::zstor
