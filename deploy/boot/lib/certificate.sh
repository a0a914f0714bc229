# shellcheck shell=bash disable=SC2154
# Sourced by node-boot.sh, after machine.sh and redis-server.sh: the certificate that the API of this machine shows to workers,
# clients and the load balancer. It is signed by the authority of the deployment, and holds for the addresses of this machine.

# issue_certificate <secrets>: writes tls/{ca.crt,api.crt,api.key}; a running node takes the new pair without a restart.
issue_certificate() {
  local folder=$etc/tls work=$secrets/certificate address names='DNS:localhost,IP:127.0.0.1'
  for address in $ADDRESSES; do names+=",IP:$address"; done
  umask 077
  rm -rf "$work"
  mkdir "$work"
  node "$here/lib/write-authority.mjs" "$1" "$work/ca.crt" "$work/ca.key"
  cat >"$work/extensions" <<END
basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature
extendedKeyUsage=serverAuth
subjectAltName=$names
END
  openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$work/api.key"
  openssl req -new -key "$work/api.key" -subj '/CN=muster-node' -out "$work/request"
  openssl x509 -req -in "$work/request" -CA "$work/ca.crt" -CAkey "$work/ca.key" -set_serial "0x4d$(openssl rand -hex 15)" \
    -days 825 -sha256 -extfile "$work/extensions" -out "$work/api.crt"
  mkdir -p "$folder"
  chown root:muster "$folder" "$work/ca.crt" "$work/api.crt" "$work/api.key"
  chmod 750 "$folder"
  chmod 640 "$work/api.key"
  chmod 644 "$work/ca.crt" "$work/api.crt"
  mv "$work/ca.crt" "$work/api.crt" "$work/api.key" "$folder/"
  rm -rf "$work"
  umask 022
}
