// Credentials: the certificates by which nodes on different hosts know each other.
#pragma once

#include <cerrno>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include <kj/async-io.h>
#include <kj/compat/tls.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <migrate/error.hpp>
#include <migrate/rpc/event_loop.hpp>
#include <migrate/rpc/socket_stream.hpp>

namespace migrate {

struct credentials {
  std::string certificate;             // file with this node's certificate, PEM
  std::string key;                     // file with its private key, PEM, readable by its owner only
  std::string authority;               // file with the certificate of the cluster's own authority, PEM
  std::string name = "migrate-node";   // in every node's certificate, as its common name and as a DNS name
};
// Files that migrate-credentials makes. Only certificates signed by `authority` for `name` are trusted; the
// system's trust store is not.

class tls {
  // Thread safety: on the I/O thread only.

public:
  tls(event_loop& loop, const credentials& files);
  // Throws errc::not_authenticated when a file is missing, cannot be parsed, is readable by others (the key), or
  // the key does not belong to the certificate.

  kj::Promise<kj::Own<kj::AsyncIoStream>> wrap(int socket, bool client);
  // Takes over the socket and does the TLS handshake. Either side checks the other's certificate and
  // name. That it succeeds here does not mean that the peer has accepted this side: only its first message does.

  error explain(const std::string& peer, const kj::Exception& exception) const;

private:
  static std::string read_file(const std::string& path, const char* what, bool secret);

  event_loop& loop_;
  credentials files_;
  kj::Own<kj::TlsContext> context_;
};

inline std::string tls::read_file(const std::string& path, const char* what, bool secret) {
  auto fail = [&](const std::string& why) {
    return error(errc::not_authenticated, std::string("the file with the ") + what + ", " + path + ", " + why);
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

inline tls::tls(event_loop& loop, const credentials& files) : loop_(loop), files_(files) {
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
    throw error(errc::not_authenticated, "the credentials " + files.certificate + ", " + files.key + " and " +
                                             files.authority +
                                             " cannot be used together: " + exception.getDescription().cStr());
  }
}

inline kj::Promise<kj::Own<kj::AsyncIoStream>> tls::wrap(int socket, bool client) {
  kj::AuthenticatedStream plain;
  plain.stream = kj::heap<detail::socket_stream>(loop_, socket);
  plain.peerIdentity = kj::UnknownPeerIdentity::newInstance();
  auto wrapped = client ? context_->wrapClient(kj::mv(plain), files_.name.c_str())
                        : context_->wrapServer(kj::mv(plain));
  return wrapped.then([name = files_.name](kj::AuthenticatedStream&& secured) {
    auto& peer = kj::downcast<kj::TlsPeerIdentity>(*secured.peerIdentity);
    if (!peer.hasCertificate()) KJ_FAIL_REQUIRE("the peer shows no certificate");
    if (peer.getCommonName() != name.c_str())
      KJ_FAIL_REQUIRE("the peer's certificate is not made for a node of this cluster", peer.getCommonName());
    return kj::mv(secured.stream);
  });
}

inline error tls::explain(const std::string& peer, const kj::Exception& exception) const {
  if (exception.getType() == kj::Exception::Type::DISCONNECTED)
    return error(errc::node_unreachable, peer + " broke off the TLS handshake: " + exception.getDescription().cStr());
  return error(errc::not_authenticated, peer + " could not be authenticated: " + exception.getDescription().cStr() +
                                            "; both nodes need certificates of the authority " + files_.authority +
                                            " for the name " + files_.name);
}

} // namespace migrate
