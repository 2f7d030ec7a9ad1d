// Names and addresses: other programs of a node derive the same ones, so that they are compared
// byte for byte with what those derived.
#include <gtest/gtest.h>

#include <set>
#include <string>

#include "lifecycle/network/names.h"

namespace qsfs::lifecycle {
namespace {

TEST(NetworkNamesTest, DerivesTheMacsOfTheReference) {
  EXPECT_EQ(to_text(derive_mac("")), "d6:1d:8c:d9:8f:00");
  EXPECT_EQ(to_text(derive_mac("\x42")), "9e:5e:d6:78:fe:57");
  EXPECT_EQ(to_text(derive_mac("A34YUGenHKyhjDMAUKZe4cVDtJM2wQ4n4XRkfGUUEYdy")),
            "8a:d3:36:10:7e:e9");
  EXPECT_EQ(to_text(derive_mac("qsfs:1-2-data")), "de:e9:ae:7b:51:1c");
  EXPECT_EQ(to_text(derive_mac("ygg:1-2-data")), "4e:e0:b5:42:9a:33");
  EXPECT_EQ(to_text(derive_mac("ygg:12-345-qsfs")), "92:56:37:c3:69:27");
  EXPECT_EQ(to_text(derive_mac("ygg:337-100-myqsfsdisk")), "9e:e8:bf:49:a8:ad");
}

TEST(NetworkNamesTest, TakesALaterWindowWhenTheFirstIsAnAssignedRange) {
  EXPECT_EQ(to_text(derive_mac("qsfs:12-345-qsfs")), "da:c2:cb:df:fb:e9");
}

TEST(NetworkNamesTest, NamesTheNamespacesOfTheReference) {
  EXPECT_EQ(namespace_name("1-2-data"), "qfs-ns-dee9ae7b511c");
  EXPECT_EQ(namespace_name("12-345-qsfs"), "qfs-ns-dac2cbdffbe9");
  EXPECT_EQ(namespace_name("337-100-myqsfsdisk"), "qfs-ns-b24485337b41");
}

TEST(NetworkNamesTest, HostLinkNamesFitTheKernelAndDiffer) {
  constexpr std::size_t kKernelMax = 15;
  std::set<std::string> names;
  for (int number = 0; number < 2000; ++number) {
    const std::string id = "1-" + std::to_string(number) + "-data";
    for (const char kind : {kYggKind, kMyceliumKind, kPublicKind}) {
      const std::string name = host_link_name(kind, id);
      EXPECT_LE(name.size(), kKernelMax);
      EXPECT_TRUE(names.insert(name).second) << id;
    }
  }
}

TEST(NetworkNamesTest, DerivesTheYggdrasilAddressOfTheReference) {
  const auto prefix = parse_prefix("303:45bf:8a48:8361::/64");
  ASSERT_TRUE(prefix.has_value());
  EXPECT_EQ(to_text(ygg_address(*prefix, "1-2-data")), "303:45bf:8a48:8361:f0d5:3030:a673:3cf0");
  EXPECT_EQ(to_text(ygg_address(*prefix, "12-345-qsfs")), "303:45bf:8a48:8361:8fda:6437:a1a9:6de9");
  EXPECT_EQ(to_text(ygg_address(*prefix, "337-100-myqsfsdisk")),
            "303:45bf:8a48:8361:acc:4f45:5978:8b94");
  EXPECT_EQ(to_text(gateway_of(*prefix)), "303:45bf:8a48:8361::1");
}

TEST(NetworkNamesTest, MyceliumAddressesHaveASaltOfTheirOwn) {
  const auto prefix = parse_prefix("5b2:1:2:3::/64");
  ASSERT_TRUE(prefix.has_value());
  const Ipv6Address address = mycelium_address(*prefix, "1-2-data");
  EXPECT_NE(address, ygg_address(*prefix, "1-2-data"));
  EXPECT_EQ(address, derived_address(*prefix, "my", "1-2-data"));
}

TEST(NetworkNamesTest, PublicIpv6HasTheLastTwoBytesOfIpv4) {
  EXPECT_EQ(to_text(public_ipv6_of(0x647f0101)), "fd00::101");
  EXPECT_EQ(to_text(public_ipv6_of(0x647ffffe)), "fd00::fffe");
  EXPECT_EQ(to_text(public_ipv6_of(0x647f0002)), "fd00::2");
}

TEST(NetworkNamesTest, RefusesPrefixesThatAreNone) {
  for (const char* text :
       {"", "300::", "300::/63", "300::1/64", "1.2.3.4/64", "/64", "300::/64x"}) {
    EXPECT_FALSE(parse_prefix(text).has_value()) << text;
  }
}

TEST(NetworkNamesTest, WritesAndReadsIpv4) {
  const auto address = parse_ipv4("100.127.3.4");
  ASSERT_TRUE(address.has_value());
  EXPECT_EQ(*address, 0x647f0304U);
  EXPECT_EQ(to_text(*address), "100.127.3.4");
  EXPECT_FALSE(parse_ipv4("100.127.3").has_value());
  EXPECT_FALSE(parse_ipv4("last_reserved_ip.0").has_value());
}

}  // namespace
}  // namespace qsfs::lifecycle
