import t, { type Test } from 'tap'
import { type RedisInfo, readInfo } from '../../../src/redis/inspect/info.ts'
import { evaluate } from '../../../src/redis-server/ha/group-status.ts'
import type { SentinelInfo } from '../../../src/redis-server/ha/probe.ts'
import { type Host, parseHosts } from '../../../src/redis-server/ha/replication-group.ts'

const hosts = parseHosts('a=10.0.1.10, b=10.0.2.10,c=10.0.3.10')
const [a, b, c] = hosts as [Host, Host, Host]

t.test('the status', async t => {
  const sentinel = (host: Host, change: Partial<SentinelInfo> = {}) => ({
    ...{ host: host.name, address: host.address },
    info: {
      ...{ primary: a.address, port: 6379, configEpoch: 1, isFailingOver: false, flags: ['master'], sentinels: [] },
      replicas: [b, c].map(({ address }) => ({ address, port: 6379, isFit: true })),
      ...{ quorumFault: undefined, ...change },
    },
  })
  const primary = readInfo(
    'redis_version:7.0.15\r\nrole:master\r\nmaster_repl_offset:110\r\nloading:0\r\nslave0:ip=10.0.2.10,port=6379,state=online,offset=100,lag=0\r\n' +
      'slave1:ip=10.0.3.10,port=6379,state=online,offset=110,lag=1\r\ndb0:keys=3,expires=0,avg_ttl=0\r\n',
  )
  const started = readInfo('role:slave\r\nslave_repl_offset:1\r\nmaster_repl_offset:900\r\n')
  t.equal(started.offset, 0, 'what Redis 8 reads from its append-only file is no place in the stream')
  const replica = readInfo('role:slave\r\nmaster_host:10.0.1.10\r\nmaster_link_status:up\r\nslave_repl_offset:100\r\n')
  const redis = (host: Host, info: RedisInfo | undefined) => ({ host: host.name, address: host.address, info })
  const redises = [redis(a, primary), redis(b, replica), redis(c, replica)]
  const sentinels = [sentinel(a), sentinel(b), sentinel(c)]
  const status = evaluate(sentinels, redises)
  t.match(status, { primary: 'a', canFailOver: true, faults: [] })
  t.match(status.hosts, [{ redis: 'primary', keyCount: 3 }, { behindBytes: 10 }, { behindBytes: 0, lagMs: 1000 }])

  const evaluated = (t: Test, change: Parameters<typeof evaluate>, canFailOver: boolean, fault: RegExp): void => {
    const { faults, ...rest } = evaluate(...change)
    t.equal(rest.canFailOver, canFailOver, String(fault))
    t.match(faults.join('; '), fault)
  }
  evaluated(
    t,
    [sentinels, [redis(a, primary), redis(b, replica), redis(c, undefined)]],
    true,
    /Redis of c does not answer/,
  )
  evaluated(
    t,
    [[...sentinels.slice(0, 2), { ...sentinel(c), info: undefined }], redises],
    true,
    /Sentinel of c does not/,
  )
  evaluated(t, [sentinels, [redis(a, undefined), ...redises.slice(1)]], false, /a is named, but does not serve/)
  const cut = [b, c].map(host => redis(host, { ...replica, isLinked: false }))
  evaluated(t, [sentinels, [redis(a, primary), ...cut]], false, /b could not take over: it is not in sync/)
  const noQuorum = hosts.map(host => sentinel(host, { quorumFault: 'NOQUORUM' }))
  evaluated(t, [noQuorum, redises], false, /Sentinel of b: NOQUORUM/)
  const split = [sentinel(a), sentinel(b, { primary: b.address }), sentinel(c, { primary: c.address })]
  evaluated(t, [split, redises], false, /no majority of the Sentinels agrees/)
  const unseen = [sentinel(a), sentinel(b, { replicas: [] }), sentinel(c, { replicas: [] })]
  evaluated(t, [unseen, redises], false, /b could not take over: most Sentinels have not seen it in sync yet/)
  const fewUnseen = [sentinel(a), sentinel(b), sentinel(c, { replicas: [] })]
  t.match(evaluate(fewUnseen, redises), { canFailOver: true, faults: [] }, 'one that is late does no harm')
})
