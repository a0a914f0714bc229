import t from 'tap'
import { mergeSentinelConf } from '../../../src/redis-server/ha/config-files.ts'
import { parseHosts } from '../../../src/redis-server/ha/replication-group.ts'

const hosts = parseHosts('a=10.0.1.10, b=10.0.2.10,c=10.0.3.10')

t.test('what Sentinel learnt outlives a new configuration', async t => {
  const group = { hosts, name: 'muster', port: 6379, sentinelPort: 26_379, tls: true, downAfterMs: 3000 }
  const template = 'port 0\nsentinel monitor muster 10.0.1.10 6379 2\nsentinel down-after-milliseconds muster 3000\n'
  t.equal(mergeSentinelConf(template, '', group), template)
  const state = `port 1
sentinel myid abc
sentinel monitor muster 10.0.3.10 6379 2
sentinel down-after-milliseconds muster 2000
sentinel config-epoch muster 4
sentinel leader-epoch muster 5
sentinel known-replica muster 10.0.1.10 6379
sentinel known-replica muster 10.9.9.9 6379
sentinel known-sentinel muster 10.0.2.10 26379 def
sentinel current-epoch 5
`
  const merged = mergeSentinelConf(template, state, group)
  t.equal(
    merged,
    `port 0
sentinel monitor muster 10.0.3.10 6379 2
sentinel down-after-milliseconds muster 3000
sentinel myid abc
sentinel config-epoch muster 4
sentinel leader-epoch muster 5
sentinel known-replica muster 10.0.1.10 6379
sentinel known-sentinel muster 10.0.2.10 26379 def
sentinel current-epoch 5
`,
    'all of it but what is no host any more',
  )
  t.equal(mergeSentinelConf(template, merged, group), merged, 'and again')
  const moved = { ...group, hosts: parseHosts('a=10.1.0.1,b=10.1.0.2,c=10.1.0.3') }
  t.match(mergeSentinelConf(template, state, moved), /monitor muster 10\.0\.1\.10.*\n.*\nsentinel myid abc\n$/)
})
