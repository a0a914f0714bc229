/**
 * Backups in S3: `<prefix>/<name>.rdb`, and `<prefix>/<name>.json` that tells of it. The latter is written last: a
 * backup without it was interrupted, and is none. How it is encrypted, and how long it is kept, is up to the bucket.
 */
import { createHash } from 'node:crypto'
import { createReadStream, createWriteStream } from 'node:fs'
import type { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { StartupError } from '../errors.ts'
import { resumableStream } from '../payloads/s3/resumable-stream.ts'
import { codeOf, openS3Calls, type S3Access, type S3Calls } from '../payloads/s3/s3-calls.ts'
import { upload } from '../payloads/s3/upload.ts'

/** What is known of a backup. */
export interface Backup {
  readonly format: 1
  /** When it was begun (ISO 8601), and by which version: `2026-11-21T08-00-00Z-muster-0.1.0`. Names sort by time. */
  readonly name: string
  readonly takenAt: string
  readonly musterVersion: string
  readonly redisVersion: string
  /** Of the server when the backup was begun. */
  readonly keyCount: number
  readonly bytes: number
  readonly sha256: string
}

export class BackupPlace {
  readonly #calls: S3Calls
  readonly #bucket: string
  readonly #prefix: string

  constructor(calls: S3Calls, bucket: string, prefix: string) {
    this.#calls = calls
    this.#bucket = bucket
    this.#prefix = prefix
  }

  /** Keeps the file, then the note that makes it a backup. @throws StartupError */
  async put(file: string, backup: Backup): Promise<void> {
    await this.#explained('s3:PutObject', async () => {
      await upload(this.#calls, this.#target(`${backup.name}.rdb`), createReadStream(file), backup.bytes)
      const note = Buffer.from(`${JSON.stringify(backup, null, 2)}\n`)
      await upload(this.#calls, this.#target(`${backup.name}.json`), note, note.byteLength)
    })
  }

  /** The names of all whole backups, oldest first. @throws StartupError */
  async names(): Promise<string[]> {
    const names: string[] = []
    await this.#explained('s3:ListBucket', async () => {
      for await (const { Key = '' } of this.#calls.objects(this.#bucket, this.#prefix)) {
        const [, name] = /^([^/]+)\.json$/.exec(Key.slice(this.#prefix.length)) ?? []
        if (name !== undefined) names.push(name)
      }
    })
    return names.sort()
  }

  /** What is known of one. @throws StartupError when there is no such backup, or its note is none of ours */
  async look(name: string): Promise<Backup> {
    const chunks: Buffer[] = []
    const { body } = await this.#open(`${name}.json`, {})
    for await (const chunk of body) chunks.push(chunk as Buffer)
    const backup = JSON.parse(Buffer.concat(chunks).toString()) as Backup
    if (backup.format !== 1 || backup.name !== name)
      throw new StartupError(`The backup ${name} is of another version of Muster.`)
    return backup
  }

  /** Fetches one into a new file. @throws StartupError when it is not, byte for byte, what was put there */
  async fetch(backup: Backup, file: string): Promise<void> {
    const hash = createHash('sha256')
    const first = await this.#open(`${backup.name}.rdb`, {})
    if (first.bytes !== backup.bytes)
      throw new StartupError(`The backup ${backup.name} is damaged: it has ${first.bytes} bytes, not ${backup.bytes}.`)
    const content = resumableStream(first.body, {
      bytes: first.bytes,
      stalledMs: this.#calls.pace.stalledMs,
      reopen: async from => (await this.#open(`${backup.name}.rdb`, { Range: `bytes=${from}-` })).body,
    })
    content.on('data', (chunk: Buffer) => void hash.update(chunk))
    await pipeline(content, createWriteStream(file, { flags: 'wx', mode: 0o600 }))
    if (hash.digest('hex') !== backup.sha256)
      throw new StartupError(`The backup ${backup.name} is damaged: its SHA-256 is not the one that was noted.`)
  }

  close(): void {
    this.#calls.close()
  }

  #target(file: string): { Bucket: string; Key: string } {
    return { Bucket: this.#bucket, Key: this.#prefix + file }
  }

  async #open(file: string, part: { Range?: string }): Promise<{ body: Readable; bytes: number }> {
    const { GetObjectCommand } = await import('@aws-sdk/client-s3')
    const command = new GetObjectCommand({ ...this.#target(file), ...part })
    const { Body, ContentLength = 0 } = await this.#explained('s3:GetObject', () =>
      this.#calls.plain((client, options) => client.send(command, options)),
    )
    return { body: Body as Readable, bytes: ContentLength }
  }

  async #explained<T>(right: string, call: () => Promise<T>): Promise<T> {
    try {
      return await call()
    } catch (error) {
      const code = codeOf((error as Error).cause ?? error)
      const where = `s3://${this.#bucket}/${this.#prefix}`
      if (code === 'NoSuchKey') throw new StartupError(`There is no such backup in ${where}.`, { cause: error })
      throw new StartupError(`S3 does not do as asked in ${where}, which takes ${right}: ${code}.`, { cause: error })
    }
  }
}

/** Opens `s3://bucket/prefix`. @throws StartupError when it is written otherwise */
export async function openBackupPlace(url: string, access: S3Access): Promise<BackupPlace> {
  const [, bucket, path = ''] = /^s3:\/\/([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:\/([\w.~/-]*))?$/.exec(url) ?? []
  if (bucket === undefined) throw new StartupError('Backups are kept in s3://bucket/prefix.')
  if (access.region === '') throw new StartupError('AWS_REGION must be set: it is the region of the bucket.')
  const prefix = path.replace(/\/+$/, '')
  return new BackupPlace(await openS3Calls(access), bucket, prefix === '' ? '' : `${prefix}/`)
}
