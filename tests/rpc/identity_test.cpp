#include <migrate/rpc/identity.hpp>

#include <fstream>
#include <iterator>

#include <catch2/catch.hpp>

#include <capnp/message.h>

using namespace migrate;

TEST_CASE("this process is like itself, also after a trip through a message") {
  auto mine = identity::of_this_process({1, 2}, {3, 4});
  CHECK_FALSE(first_difference(mine, mine));
  capnp::MallocMessageBuilder message;
  mine.write(message.initRoot<protocol::Identity>());
  auto theirs = identity::read(message.getRoot<protocol::Identity>().asReader());
  CHECK_FALSE(first_difference(mine, theirs));
  CHECK(theirs.objects == mine.objects);
  CHECK(theirs.cpu_active == mine.cpu_active);
}

TEST_CASE("what this process says of itself") {
  auto mine = identity::of_this_process({1, 2});
  REQUIRE(mine.objects.size() > 0);
  CHECK(mine.objects[0].name == "the executable");
  for (const auto& object : mine.objects) {
    CAPTURE(object.name);
    CHECK(object.build.size() >= 16);
    CHECK(object.name.find("vdso") == std::string::npos);
  }
  bool has_libc = false; // which a static executable has not
  for (const auto& object : mine.objects) has_libc = has_libc || object.name == "libc.so.6";
  std::ifstream maps("/proc/self/maps");
  std::string mapped{std::istreambuf_iterator<char>(maps), {}};
  CHECK(has_libc == (mapped.find("/libc.so.6\n") != std::string::npos));
  CHECK(mine.page_size == 4096);
  CHECK(mine.plan_base == detail::plan_base);
  CHECK(mine.cpu_active.size() > 0);
}

TEST_CASE("each difference is named, with what to do") {
  auto mine = identity::of_this_process({1, 2}, {3, 4});
  mine.objects.resize(1); // a static executable has no libraries
  mine.objects.push_back({"libfirst.so", 0x7000'0000, "a build"});
  mine.objects.push_back({"libsecond.so", 0x7100'0000, "another build"});
  auto theirs = mine;
  std::string named, advice;

  SECTION("protocol") {
    theirs.protocol = 2;
    named = "protocol's version differs: here it is 1, there 2";
    advice = "same version";
  }
  SECTION("cluster") {
    theirs.cluster = {3, 5};
    named = "the cluster differs";
    advice = "another cluster";
  }
  SECTION("store") {
    theirs.store = {1, 3};
    named = "the store differs";
    advice = "same shared store";
  }
  SECTION("architecture") {
    theirs.architecture = "aarch64";
    named = "there aarch64";
    advice = "one architecture";
  }
  SECTION("executable") {
    theirs.objects[0].build[3] ^= 1;
    named = "the executable's build id";
    advice = "same executable";
  }
  SECTION("library missing there") {
    theirs.objects.pop_back();
    named = mine.objects.back().name + " is loaded here and not there";
    advice = "LD_PRELOAD";
  }
  SECTION("library missing here") {
    theirs.objects.push_back({"libextra.so", 1, "x"});
    named = "libextra.so is loaded there and not here";
    advice = "LD_PRELOAD";
  }
  SECTION("library version") {
    theirs.objects[1].build = "other";
    named = "the build id of " + mine.objects[1].name;
    advice = "same version of it";
  }
  SECTION("library order") {
    std::swap(theirs.objects[1], theirs.objects[2]);
    named = "library number 1 differs";
    advice = "same order";
  }
  SECTION("load address") {
    theirs.objects[1].address += 4096;
    named = "the load address of " + mine.objects[1].name;
    advice = "ADDR_NO_RANDOMIZE";
  }
  SECTION("page size") {
    theirs.page_size = 65536;
    named = "page size differs: here it is 4096, there 65536";
    advice = "kernels";
  }
  SECTION("plan base") {
    theirs.plan_base += 1;
    named = "base of the address plan";
    advice = "MIGRATE_PLAN_BASE";
  }
  SECTION("plan size") {
    theirs.plan_size += 1;
    named = "size of the address plan";
    advice = "MIGRATE_PLAN_BASE";
  }
  SECTION("classes") {
    theirs.classes.pop_back();
    named = "number of region classes";
    advice = "same version of migrate";
  }
  SECTION("class layout") {
    theirs.classes[2].size_bits++;
    named = "region class 2";
    advice = "same version of migrate";
  }
  SECTION("processor lacks what the compiler used") {
    theirs.cpu_compiled.push_back("APX_F");
    named = "APX_F, which this one lacks";
    advice = "-march";
  }
  SECTION("the other way") {
    auto changed = mine;
    changed.cpu_compiled.push_back("APX_F");
    auto text = first_difference(changed, mine);
    REQUIRE(text);
    CHECK(text->find("APX_F, which the other node's lacks") != std::string::npos);
    return;
  }
  SECTION("user") {
    theirs.user = mine.user + 1;
    named = "the user differs";
    advice = "as the same one";
  }
  SECTION("groups") {
    theirs.groups.push_back(4711);
    named = "the list of the user's groups differs";
    advice = "in the same ones";
  }
  SECTION("the C library has chosen differently") {
    theirs.cpu_active.push_back("FMA4");
    named = "the processor feature FMA4, which this node lacks";
    advice = "GLIBC_TUNABLES=glibc.cpu.hwcaps=-FMA4";
  }

  auto text = first_difference(mine, theirs);
  REQUIRE(text);
  CAPTURE(*text);
  CHECK(text->find(named) != std::string::npos);
  CHECK(text->find(advice) != std::string::npos);
  auto back = first_difference(theirs, mine);
  REQUIRE(back);
}

TEST_CASE("what cannot matter is no difference") {
  const auto mine = identity::of_this_process({1, 2}, {3, 4});
  auto theirs = mine;
  SECTION("a joining node does not know its cluster") { theirs.cluster = {}; }
  SECTION("a processor feature that neither compiler nor C library uses") {
    theirs.cpu_active.push_back("SOMETHING_NEW");
  }
  CHECK_FALSE(first_difference(mine, theirs));
  CHECK_FALSE(first_difference(theirs, mine));
}

TEST_CASE("a file without a build id is told by its content") {
  std::string self = detail::hash_of_file("/proc/self/exe");
  CHECK(self.size() == 16);
  CHECK(self == detail::hash_of_file("/proc/self/exe"));
  CHECK(self != detail::hash_of_file("/bin/sh"));
}
