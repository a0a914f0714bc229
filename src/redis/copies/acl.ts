/**
 * Who may do what on a copy. `default` is off everywhere: nobody gets in without a name.
 *
 *   on Redis     muster    nodes: the keys of Muster, nothing that administers or endangers the server
 *                replica   the other copies: replication, nothing else
 *                sentinel  the Sentinels: watch, and change roles
 *   on Sentinel  muster    nodes: ask who is primary, be told when it changes
 *                peer      the other Sentinels: votes and news
 *   on both      operator  `muster redis` and people: everything
 *
 * The rules load in Redis 6.2, 7 and Valkey: they name no command that one of these lacks.
 */
import { createHash } from 'node:crypto'
import type { UserName } from './secrets.ts'

type Passwords = Readonly<Record<UserName, string>>

/**
 * Off, so nobody is let in as this one; but Redis reads its own append-only file as this one, and without these rights it
 * leaves out every transaction in it, which is what scripts and MULTI become there.
 */
const defaultOnRedis = 'user default off resetpass ~* &* +@all'
/** What INFO, ROLE and CONFIG GET tell is what nodes check at their start; the rest of @dangerous stays shut. */
const nodeOnRedis = '~{muster* &{muster* +@all -@admin -@dangerous +info +role +config|get'
const sentinelOnRedis =
  '&* -@all +multi +slaveof +replicaof +ping +exec +subscribe +psubscribe +config|rewrite +role +publish +info +client|setname +client|kill +script|kill'
/** Reads all that Sentinel knows. PUBLISH is news among Sentinels, which a node must not make up. */
const nodeOnSentinel = [
  '&* -@all +@connection +@pubsub -publish -@admin -@dangerous +info +role',
  ...['get-master-addr-by-name', 'master', 'masters', 'replicas', 'slaves', 'sentinels', 'ckquorum', 'myid'].map(
    name => `+sentinel|${name}`,
  ),
].join(' ')
const peerOnSentinel = '&* -@all +ping +publish +client|setname +sentinel|is-master-down-by-addr'

/** The users of Redis, as `users.acl`. */
export const redisUsers = (passwords: Passwords): string =>
  lines([
    defaultOnRedis,
    user('muster', passwords, nodeOnRedis),
    user('replica', passwords, '-@all +psync +replconf +ping'),
    user('sentinel', passwords, sentinelOnRedis),
    user('operator', passwords, '~* &* +@all'),
  ])

/** The users of Sentinel, as `sentinel-users.acl`. */
export const sentinelUsers = (passwords: Passwords): string =>
  lines([
    'user default off resetkeys resetchannels -@all',
    user('muster', passwords, nodeOnSentinel),
    user('peer', passwords, peerOnSentinel),
    user('operator', passwords, '~* &* +@all'),
  ])

/** Only the hash of a password stands in an ACL file. */
const user = (name: UserName, passwords: Passwords, rules: string): string =>
  `user ${name} on #${createHash('sha256').update(passwords[name]).digest('hex')} ${rules}`

const lines = (users: readonly string[]): string => users.map(line => `${line}\n`).join('')
