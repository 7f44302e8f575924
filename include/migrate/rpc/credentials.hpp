// Credentials: the certificates by which nodes on different hosts know each other.
#pragma once

#include <cerrno>
#include <cstring>
#include <exception>
#include <string>
#include <thread>
#include <utility>

#include <kj/async-io.h>
#include <kj/compat/tls.h>
#include <kj/debug.h>
#include <kj/vector.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <migrate/error.hpp>

namespace migrate {

struct credentials {
  std::string certificate;           // file with this node's certificate, PEM
  std::string key;                   // file with its private key, PEM, readable by its owner only
  std::string authority;             // file with the certificate of the cluster's own authority, PEM
  std::string name = "migrate-node"; // in every node's certificate, as its common name and as a DNS name

  static credentials in(const std::string& directory) {
    credentials files;
    files.certificate = directory + "/node.crt";
    files.key = directory + "/node.key";
    files.authority = directory + "/authority.crt";
    return files;
  }
  // As migrate-credentials names them.
};
// Files that migrate-credentials makes. Only certificates signed by `authority` for `name` are trusted; the
// system's trust store is not.

class tls {
  // Thread safety: on the I/O thread only.

public:
  explicit tls(const credentials& files);
  // Throws errc::not_authenticated when a file is missing, cannot be parsed, or is readable by others (the key).

  struct secured {
    kj::Own<kj::AsyncIoStream> stream;
    bool name_is_right = false; // the peer's certificate is one for nodes; if not, tell it so and close
  };

  kj::Promise<secured> wrap(kj::Own<kj::AsyncIoStream> plain, bool client);
  // Does the TLS handshake. Either side checks the other's certificate. That it succeeds here does not mean that the
  // peer has accepted this side: only its first message does.

  error explain(const std::string& peer, const kj::Exception& exception) const;
  error wrong_name(const std::string& peer) const;

  static void check(const credentials& files);
  // Has the credentials authenticate themselves to themselves, so that a wrong key, an expired certificate, another
  // authority or another name come out when a node starts, not when it is called. Throws errc::not_authenticated. On any
  // thread; blocks for some milliseconds.

private:
  static std::string read_file(const std::string& path, const char* what, bool secret);

  credentials files_;
  kj::Own<kj::TlsContext> context_;
};

inline std::string tls::read_file(const std::string& path, const char* what, bool secret) {
  auto fail = [&](const std::string& why) {
    return error(errc::not_authenticated,
                 std::string("the file with the ") + what + ", " + path + ", " + why);
  };
  int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) throw fail(std::string("cannot be read: ") + std::strerror(errno));
  struct stat status {};
  std::string text;
  bool good = ::fstat(file, &status) == 0;
  char chunk[4096];
  ssize_t n = 0;
  while (good && text.size() < (1u << 20) && (n = ::read(file, chunk, sizeof chunk)) > 0)
    text.append(chunk, static_cast<std::size_t>(n));
  ::close(file);
  if (!good || n < 0) throw fail(std::string("cannot be read: ") + std::strerror(errno));
  if (secret && (status.st_mode & 077) != 0) throw fail("may be read by others; chmod 600 it");
  if (text.empty()) throw fail("is empty");
  return text;
}

inline tls::tls(const credentials& files) : files_(files) {
  std::string certificate = read_file(files.certificate, "certificate", false);
  std::string key = read_file(files.key, "private key", true);
  std::string authority = read_file(files.authority, "authority's certificate", false);
  try {
    kj::TlsKeypair pair{kj::TlsPrivateKey(kj::StringPtr(key.c_str(), key.size())),
                        kj::TlsCertificate(kj::StringPtr(certificate.c_str(), certificate.size()))};
    kj::TlsCertificate trusted(kj::StringPtr(authority.c_str(), authority.size()));
    kj::TlsContext::Options options;
    options.useSystemTrustStore = false;
    options.verifyClients = true;
    options.trustedCertificates = kj::arrayPtr(&trusted, 1);
    options.minVersion = kj::TlsVersion::TLS_1_2;
    options.defaultKeypair = pair;
    context_ = kj::heap<kj::TlsContext>(kj::mv(options));
  } catch (const kj::Exception& exception) {
    throw error(errc::not_authenticated,
                "the credentials " + files.certificate + ", " + files.key + " and " + files.authority +
                    " cannot be used together: " + exception.getDescription().cStr());
  }
}

inline kj::Promise<tls::secured> tls::wrap(kj::Own<kj::AsyncIoStream> plain, bool client) {
  kj::AuthenticatedStream both;
  both.stream = kj::mv(plain);
  both.peerIdentity = kj::UnknownPeerIdentity::newInstance();
  auto wrapped =
      client ? context_->wrapClient(kj::mv(both), files_.name.c_str()) : context_->wrapServer(kj::mv(both));
  return wrapped.then([name = files_.name](kj::AuthenticatedStream&& made) {
    auto& peer = kj::downcast<kj::TlsPeerIdentity>(*made.peerIdentity);
    if (!peer.hasCertificate()) KJ_FAIL_REQUIRE("the peer shows no certificate");
    return secured{kj::mv(made.stream), peer.getCommonName() == name.c_str()};
  });
}

inline error tls::wrong_name(const std::string& peer) const {
  return error(errc::not_authenticated,
               peer + " shows a certificate that is not for a node of this cluster; its name must be " +
                   files_.name);
}

inline void tls::check(const credentials& files) {
  std::exception_ptr failure;
  std::thread([&] { // the calling thread may have a KJ loop of its own
    try {
      tls both(files);
      kj::EventLoop loop;
      kj::WaitScope scope(loop);
      auto pipe = kj::newTwoWayPipe();
      std::string first; // what the side that noticed first has to say
      bool named = true;
      kj::Vector<kj::Own<kj::AsyncIoStream>> streams; // until both are done
      auto side = [&](int end, bool client) {
        return both.wrap(kj::mv(pipe.ends[end]), client)
            .then(
                [&](secured&& made) {
                  named = named && made.name_is_right;
                  streams.add(kj::mv(made.stream));
                },
                [&](kj::Exception&& exception) {
                  if (first.empty()) first = exception.getDescription().cStr();
                });
      };
      auto server = side(0, false);
      side(1, true).then([&] { return kj::mv(server); }).wait(scope);
      if (!first.empty())
        throw error(errc::not_authenticated,
                    "the credentials " + files.certificate + ", " + files.key + " and " + files.authority +
                        " do not fit together or have expired: " + first +
                        "; the certificate must be signed by that authority, for the name " + files.name);
      if (!named) throw both.wrong_name("this node itself");
    } catch (...) {
      failure = std::current_exception();
    }
  })
      .join();
  if (failure) std::rethrow_exception(failure);
}

inline error tls::explain(const std::string& peer, const kj::Exception& exception) const {
  if (exception.getType() == kj::Exception::Type::DISCONNECTED)
    return error(errc::node_unreachable,
                 peer + " broke off the TLS handshake: " + exception.getDescription().cStr());
  return error(errc::not_authenticated,
               peer + " could not be authenticated: " + exception.getDescription().cStr() +
                   "; both nodes need certificates of the authority " + files_.authority + " for the name " +
                   files_.name);
}

} // namespace migrate
