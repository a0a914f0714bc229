/** The disk of the drive is filled to the byte while it is written to, and freed again. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { appendFileSync, mkdtempSync } from 'node:fs'
import { rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import t from 'tap'
import { SmallDisk } from './small-disk.ts'

const canMount = process.getuid?.() === 0 && process.platform === 'linux'

t.test(
  'it is filled, also under a writer, and freed',
  { skip: !canMount && 'mounting takes root on Linux' },
  async t => {
    const folder = mkdtempSync(join(tmpdir(), 'muster-small-disk-'))
    const disk = await SmallDisk.mount(folder)
    t.teardown(() => rm(folder, { recursive: true, force: true }))
    t.teardown(() => disk.unmount())
    const data = join(folder, 'data')
    appendFileSync(data, 'kept')
    await disk.fill(8 << 20)
    t.ok((await disk.freeBytes()) <= 8 << 20)
    t.throws(() => appendFileSync(data, Buffer.alloc(16 << 20)), { code: 'ENOSPC' })
    disk.free()
    appendFileSync(data, Buffer.alloc(16 << 20))

    const writer = spawn('sh', [
      '-c',
      'while :; do head -c 65536 /dev/zero >> "$0" 2>/dev/null; done',
      join(folder, 'log'),
    ])
    const gone = once(writer, 'exit')
    while ((await stat(join(folder, 'log')).catch(() => undefined)) === undefined) await delay(10)
    await disk.fill(0)
    t.throws(() => appendFileSync(data, Buffer.alloc(256 << 20)), { code: 'ENOSPC' }, 'while others write to it')
    writer.kill('SIGKILL')
    await gone
  },
)
