/** The redis.conf of one copy. It says nothing of primary and replica: that is decided at each start. */
import { type Copies, folderMark, type Host } from './copies.ts'
import type { Secrets } from './secrets.ts'

/** The text of redis.conf, the template of what `muster redis run` starts Redis with. */
export function redisConf(copies: Copies, host: Host, secrets: Secrets): string {
  return directives({
    ...network(copies, host, copies.port),
    aclfile: `"${folderMark}/users.acl"`,
    masteruser: 'replica',
    masterauth: secrets.passwords.replica,
    daemonize: 'no',
    loglevel: 'notice',
    // Without the append-only file, a primary that comes back quickly would empty the other copies.
    appendonly: 'yes',
    appendfsync: 'everysec',
    'aof-load-truncated': 'yes',
    save: '""',
    'maxmemory-policy': 'noeviction',
    // Jobs are hashes: packed, they take half of the memory. Redis 7 knows this name as well as 6.2 does.
    'hash-max-ziplist-value': '1024',
    // A primary that is alone takes no writes: nobody could acknowledge them.
    'min-replicas-to-write': '1',
    'min-replicas-max-lag': '2',
    'replica-announce-ip': host.address,
    'replica-announce-port': String(copies.port),
    'repl-timeout': '5',
    'repl-ping-replica-period': '1',
    'repl-backlog-size': '64mb',
    'repl-diskless-sync': 'yes',
    'repl-diskless-sync-delay': '0',
    'tcp-keepalive': '15',
  })
}

/** What Redis and Sentinel share: where to listen, and the certificates. */
export function network(copies: Copies, host: Host, port: number): Record<string, string> {
  const listens = host.address.startsWith('127.') ? host.address : `${host.address} -127.0.0.1`
  const shared = { bind: listens, 'protected-mode': 'yes' }
  if (!copies.tls) return { ...shared, port: String(port) }
  return {
    ...shared,
    port: '0',
    'tls-port': String(port),
    'tls-replication': 'yes',
    'tls-ca-cert-file': `"${folderMark}/tls/ca.crt"`,
    'tls-cert-file': `"${folderMark}/tls/server.crt"`,
    'tls-key-file': `"${folderMark}/tls/server.key"`,
    // Whoever connects proves itself by user and password.
    'tls-auth-clients': 'no',
    'tls-protocols': '"TLSv1.2 TLSv1.3"',
  }
}

export const directives = (all: Readonly<Record<string, string>>): string =>
  Object.entries(all)
    .map(([name, value]) => `${name} ${value}\n`)
    .join('')

export interface RunConf {
  readonly dataDir: string
  readonly maxMemoryBytes: number
  /** Unset: start as primary. */
  readonly replicaOf?: { readonly address: string; readonly port: number }
  /** Sentinel is not to promote this copy yet. */
  readonly isBarred?: boolean
}

/** What a start adds to the template. Redis may rewrite the file it is given: the next start makes it anew. */
export function runConf(template: string, files: RunFiles, run: RunConf): string {
  return (
    template +
    directives({
      dir: `"${run.dataDir}"`,
      maxmemory: String(run.maxMemoryBytes),
      ...ownFiles(files),
      ...(run.replicaOf && { replicaof: `${run.replicaOf.address} ${run.replicaOf.port}` }),
      ...(run.isBarred && { 'replica-priority': '0' }),
    })
  )
}

/** What one server of this host writes, and by what it is known. */
export interface RunFiles {
  readonly config: string
  readonly log: string
  readonly pid: string
}

export const ownFiles = ({ log, pid }: RunFiles): Record<string, string> => ({
  logfile: `"${log}"`,
  pidfile: `"${pid}"`,
  // A later supervisor knows the process by its configuration.
  'proc-title-template': '"{title} {config-file} {server-mode}"',
})
