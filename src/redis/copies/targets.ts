/** Where the Redis and the Sentinel of each host are, and how the operator gets in. */
import { readFile } from 'node:fs/promises'
import type { Target } from './ask.ts'
import { type Copy, copyFiles, type Host, tlsName } from './copies.ts'

export interface Targets {
  redis(host: Host): Target
  sentinel(host: Host): Target
}

/** As the user `operator`, with the certificate authority in the folder of this host. */
export async function openTargets(folder: string, copy: Copy): Promise<Targets> {
  const access = {
    ...{ username: 'operator', password: copy.password },
    ...(copy.tls && { tls: { ca: await readFile(copyFiles(folder).authority, 'utf8'), name: tlsName } }),
  }
  return {
    redis: ({ address }) => ({ address, port: copy.port, ...access }),
    sentinel: ({ address }) => ({ address, port: copy.sentinelPort, ...access }),
  }
}
