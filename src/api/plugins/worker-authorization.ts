/**
 * What a worker token binds: it speaks for one instance, and from the first heartbeat on for one worker, whose name
 * every lease token carries. An API key of the role `work` speaks for the workers that it introduced, and Redis knows
 * which those are; each call that names a lease names it for the worker that holds it. While the node is open everybody
 * may be any worker.
 */
import type { Caller } from '../../access/roles.ts'
import { Problem } from '../../errors.ts'
import type { WorkerRegistry } from '../../fleet/workers/registry.ts'
import { workerOfToken } from '../../jobs/bullmq/job-queue.ts'

interface Held {
  readonly token: string
}

/**
 * For a heartbeat: the token before the first one names no worker yet.
 * @throws Problem forbidden
 */
export function requireInstance(
  caller: Caller,
  { workerId, instanceId }: { readonly workerId: string; readonly instanceId?: string },
  leases: readonly Held[],
): void {
  const { worker } = caller
  requireOwnLeases(caller, workerId, leases)
  if (worker === undefined) return
  if (instanceId !== worker.instanceId)
    throw new Problem(
      'forbidden',
      `This token is for the instance ${worker.instanceId}, not for ${instanceId?.slice(0, 128) ?? 'a worker without one'}.`,
    )
  if (worker.workerId !== undefined) requireWorker(caller, workerId, leases)
  else for (const { token } of leases) requireOwn(workerId, token)
}

/**
 * For all other calls of a worker.
 * @throws Problem forbidden
 */
export function requireWorker(caller: Caller, workerId: string, leases: readonly Held[] = []): void {
  const { worker } = caller
  requireOwnLeases(caller, workerId, leases)
  if (worker === undefined) return
  if (worker.workerId === undefined) throw new Problem('forbidden', firstToken)
  if (worker.workerId !== workerId)
    throw new Problem('forbidden', `This token is for the worker ${worker.workerId}, not for ${workerId.slice(0, 64)}.`)
  for (const { token } of leases) requireOwn(workerId, token)
}

/**
 * For what is done in the name of a worker, beside its heartbeat: of one that a key has introduced, only that key may
 * do it. A worker without a record holds no lease either.
 * @throws Problem forbidden
 */
export async function requireIntroducer(
  caller: Caller,
  workerId: string,
  registry: Pick<WorkerRegistry, 'mayClaim'>,
): Promise<void> {
  if (caller.kind === 'key') await registry.mayClaim(workerId, caller.id)
}

/**
 * For bytes that a lease gives access to.
 * @throws Problem forbidden
 */
export async function requireLeaseOf(
  caller: Caller,
  leaseToken: string,
  registry: Pick<WorkerRegistry, 'mayClaim'>,
): Promise<void> {
  const { worker } = caller
  if (worker === undefined) return await requireIntroducer(caller, workerOfToken(leaseToken), registry)
  if (worker.workerId === undefined) throw new Problem('forbidden', firstToken)
  requireOwn(worker.workerId, leaseToken)
}

const firstToken = 'This is the first token of an instance: send a heartbeat, and use the token of its reply.'

function requireOwnLeases({ kind }: Caller, workerId: string, leases: readonly Held[]): void {
  if (kind === 'key') for (const { token } of leases) requireOwn(workerId, token)
}

function requireOwn(workerId: string, leaseToken: string): void {
  if (workerOfToken(leaseToken) !== workerId)
    throw new Problem('forbidden', `This lease is not one of the worker ${workerId.slice(0, 64)}.`)
}
