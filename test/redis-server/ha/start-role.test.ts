import t from 'tap'
import { type Host, parseHosts } from '../../../src/redis-server/ha/replication-group.ts'
import {
  type BarredServer,
  barOf,
  decideStart,
  endsWithinMs,
  type Situation,
} from '../../../src/redis-server/ha/start-role.ts'

const hosts = parseHosts('a=10.0.1.10, b=10.0.2.10,c=10.0.3.10')
const [a, b, c] = hosts as [Host, Host, Host]
const says = (host: Host, primary: Host, configEpoch = 1, isFailingOver = false) => ({
  ...{ host: host.name, primary: primary.address, configEpoch, isFailingOver },
})
const server = (host: Host, state: 'empty' | 'cold' | 'live' | 'primary') => ({
  host: host.name,
  role: state === 'primary' ? ('primary' as const) : ('replica' as const),
  hasData: state !== 'empty',
  offset: state === 'live' ? 4711 : 0,
})
const downAfterMs = 2000

t.test('the start rule', async t => {
  const all = [says(a, a), says(b, a), says(c, a)]
  const cold = [server(b, 'cold'), server(c, 'cold')]
  const cases: [name: string, situation: Partial<Situation>, expected: object][] = [
    ['nobody answers', { sentinels: [] }, { act: 'wait', isNamed: false }],
    ['only its own Sentinel answers', { sentinels: [says(a, a)] }, { act: 'wait', isNamed: false }],
    ['two disagree', { sentinels: [says(a, a), says(b, b, 2)] }, { act: 'wait', isNamed: false }],
    [
      'two name a stranger',
      { sentinels: [says(b, { ...a, address: '10.9.9.9' }), says(c, { ...a, address: '10.9.9.9' })] },
      { act: 'wait', isNamed: false },
    ],
    ['two name another', { sentinels: [says(b, b, 2), says(c, b, 2)] }, { act: 'replica', of: b }],
    ['its own Sentinel is stale', { sentinels: [says(a, a), says(b, b, 2), says(c, b, 2)] }, { act: 'replica', of: b }],
    ['another is named and dead', { sentinels: [says(a, b), says(c, b)], servers: [] }, { act: 'replica', of: b }],
    ['two have not heard yet', { sentinels: [says(a, a), says(b, b, 2), says(c, a)] }, { act: 'wait', isNamed: false }],
    [
      'a failover is under way',
      { sentinels: [says(a, a), says(b, a, 1, true)] },
      { act: 'wait', wantsFailover: false },
    ],
    [
      'a failover never ends',
      { sentinels: [says(a, a), says(b, a, 1, true)], namedForMs: 1e6 },
      { act: 'wait', wantsFailover: false },
    ],
    ['all were down', { servers: cold }, { act: 'primary' }],
    [
      'all were down, one is lost',
      { sentinels: [says(a, a), says(b, a)], servers: [server(b, 'cold')] },
      { act: 'primary' },
    ],
    ['the others are away', { servers: [] }, { act: 'primary' }],
    ['another has lived on', { servers: [server(b, 'live')] }, { act: 'wait', isNamed: true, wantsFailover: false }],
    [
      'it should have taken over',
      { servers: [server(b, 'live')], namedForMs: 6000 },
      { act: 'wait', wantsFailover: true },
    ],
    [
      'it cannot take over',
      { servers: [server(b, 'live')], namedForMs: endsWithinMs(downAfterMs) },
      { act: 'primary' },
    ],
    [
      'another serves already',
      { servers: [server(b, 'primary')], namedForMs: 1e6 },
      { act: 'wait', wantsFailover: true },
    ],
    ['the very first start', { isEmpty: true, servers: [server(b, 'empty')] }, { act: 'primary' }],
    ['the very first start, alone so far', { isEmpty: true, servers: [] }, { act: 'wait', isNamed: true }],
    [
      'its disk is empty, others have data',
      { isEmpty: true, servers: cold, namedForMs: 1e9 },
      { act: 'wait', wantsFailover: true },
    ],
    [
      'its disk is empty, one other too',
      { isEmpty: true, servers: [server(b, 'empty'), server(c, 'cold')], namedForMs: 1e9 },
      { act: 'wait', wantsFailover: true },
    ],
  ]
  for (const [name, given, expected] of cases) {
    const decision = decideStart({
      ...{ own: a, hosts, sentinels: all, servers: [], isEmpty: false, downAfterMs, namedForMs: 0, ...given },
    })
    t.match(decision, expected, `${name}: ${decision.reason}`)
    t.ok(decision.reason)
  }
  const five = parseHosts('a=10.0.0.1,b=10.0.0.2,c=10.0.0.3,d=10.0.0.4,e=10.0.0.5')
  const two = five.slice(0, 2).map(host => says(host, five[1] as Host))
  const ofFive = { own: five[0] as Host, hosts: five, servers: [], isEmpty: false, downAfterMs, namedForMs: 0 }
  t.match(decideStart({ ...ofFive, sentinels: two }), { act: 'wait' }, 'two of five are no majority')
})

t.test('why Sentinel may not promote a server that was started as a replica', async t => {
  const [a, , c] = hosts as [Host, Host, Host]
  const server = (host: Host, offset = 0) => ({ host: host.name, role: 'replica' as const, hasData: true, offset })
  const cases: [name: string, given: Partial<BarredServer>, reason: RegExp | undefined][] = [
    ['it has data, the primary is away', { barredForMs: 9999 }, /^a may have newer data/],
    ['for long', { barredForMs: 10_000 }, undefined],
    ['the primary is back, and not copied yet', { servers: [server(a)] }, /^a may have newer data/],
    ['another replica was started, too', { servers: [server(c)] }, /^a may have newer data/],
    ['another replica has lived on', { servers: [server(c, 7)], barredForMs: 119_999 }, /^c has followed the primary/],
    ['and cannot take over', { servers: [server(c, 7)], barredForMs: 120_000 }, undefined],
    ['it has followed, and so has another', { servers: [server(c, 7)], hasFollowed: true }, undefined],
    ['it is empty', { wasEmpty: true, servers: [server(a), server(c)], barredForMs: 1e9 }, /is empty/],
    ['it was empty, and has copied a primary', { wasEmpty: true, hasFollowed: true }, undefined],
  ]
  for (const [name, given, reason] of cases) {
    const bar = barOf({ primary: a, wasEmpty: false, barredForMs: 0, hasFollowed: false, servers: [], ...given })
    if (reason === undefined) t.equal(bar, undefined, name)
    else t.match(bar, reason, name)
  }
})
