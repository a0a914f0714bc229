import t from 'tap'
import { countInSync, readInfo } from '../../../src/redis/inspect/info.ts'

t.test('a primary: its place in the stream, its keys, its memory', async t => {
  const info = readInfo(
    [
      '# Server',
      'redis_version:7.0.15',
      'redis_mode:standalone',
      'loading:0',
      'used_memory:1000',
      'mem_not_counted_for_evict:100',
      'maxmemory:2000',
      'total_system_memory:9000',
      'maxmemory_policy:noeviction',
      'aof_enabled:1',
      'aof_last_write_status:err',
      'role:master',
      'master_repl_offset:110',
      'db0:keys=3,expires=0,avg_ttl=0',
      'db1:keys=4,expires=0,avg_ttl=0',
    ].join('\r\n'),
  )
  t.match(info, { role: 'primary', version: '7.0.15', isCluster: false, isLoading: false, keyCount: 7, offset: 110 })
  t.same(info.memory, { used: 1000, counted: 900, limit: 2000, system: 9000 })
  t.match(info, { evictionPolicy: 'noeviction', keepsAppendOnlyFile: true, follows: undefined })
  t.same(info.fileFaults, ['aof_last_write_status is err'])
})

t.test('a replica: its primary, and how it follows', async t => {
  const info = readInfo(
    [
      'role:slave',
      'master_host:10.0.1.10',
      'master_port:6379',
      'master_link_status:up',
      'master_last_io_seconds_ago:3',
      'slave_repl_offset:1',
      'master_repl_offset:900',
    ].join('\r\n'),
  )
  t.match(info, { role: 'replica', follows: { address: '10.0.1.10', port: '6379' }, isLinked: true, silentMs: 3000 })
  t.equal(info.offset, 0, 'what Redis 8 reads from its append-only file is no place in the stream')
})

t.test('replicas that are in sync', async t => {
  const lines = [
    'slave0:ip=10.0.0.1,port=6379,state=online,offset=42,lag=0',
    'slave1:ip=10.0.0.2,port=6379,state=online,offset=42,lag=3',
    'slave2:ip=10.0.0.3,port=6379,state=wait_bgsave,offset=0,lag=0',
    'slave3:ip=10.0.0.4,port=6379,state=online,offset=42,lag=2,type=rdb-channel',
    'slave4:ip=10.0.0.5,port=6379,state=online,offset=42,lag=-1',
  ]
  t.equal(countInSync(readInfo('role:master')), 0)
  t.equal(countInSync(readInfo(['role:master', ...lines].join('\r\n'))), 2)
})

t.test('nothing is not a fault', async t => {
  t.match(readInfo(''), { version: '?', keyCount: 0, replicas: [], fileFaults: [], evictionPolicy: undefined })
})
