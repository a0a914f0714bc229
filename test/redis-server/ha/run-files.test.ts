import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { holdsNoData } from '../../../src/redis-server/ha/run-files.ts'

t.test('what a Redis would load', async t => {
  const folder = t.testdir({
    'dump.rdb': 'x'.repeat(1000),
    appendonlydir: { 'appendonly.aof.1.base.rdb': 'x'.repeat(88), 'appendonly.aof.1.incr.aof': 'x'.repeat(1000) },
  })
  const manifest = (...lines: string[]): Promise<void> =>
    writeFile(join(folder, 'appendonlydir', 'appendonly.aof.manifest'), lines.join('\n'))
  t.equal(await holdsNoData(join(folder, 'nonexistent')), true)
  t.equal(await holdsNoData(folder), true, 'neither what a sync left nor what no manifest lists')
  await manifest('file appendonly.aof.1.base.rdb seq 1 type b', '')
  t.equal(await holdsNoData(folder), true, 'a head and nothing else')
  await manifest('file appendonly.aof.1.base.rdb seq 1 type b', 'file appendonly.aof.1.incr.aof seq 1 type i', '')
  t.equal(await holdsNoData(folder), false)
  await manifest('file appendonly.aof.1.incr.aof seq 1 type i startoffset 0', '')
  t.equal(await holdsNoData(folder), false, 'as Redis 8 lists it')
  await manifest('')
  await writeFile(join(folder, 'appendonly.aof'), 'x'.repeat(1000))
  t.equal(await holdsNoData(folder), false, 'the one file of Redis 6')
})
