/**
 * The cordon: a worker that was told to drain gets no more jobs, not even one that was on its way to it.
 *
 *   claim:      look at the flag ──▶ lease (from now on Redis shows it) ──▶ look again ──yes──▶ deliver
 *                                                                              └─no──▶ requeue, no attempt spent
 *   terminate:  set the flag ──▶ wait until Redis shows no lease ──▶ terminate
 *
 * Code that ends a worker sets the flag before it reads the leases. Code that delivers a job leases it before it looks at
 * the flag for the last time. So either the terminator sees the lease, or the claim sees the flag: no job that was
 * delivered is ever under a worker that scale-in terminates. Only the second look is the cordon; the first one spares the
 * work. The second look is at the caller, too: a key that was revoked while its claim waited is given nothing.
 * test/models/cordon-model.ts tries all this in random order, and finds the hole when the second look is left out.
 */
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Access } from '../../access/access.ts'
import type { Lease } from '../../contract/worker-protocol.ts'
import { Problem } from '../../errors.ts'
import type { Jobs } from '../../jobs/jobs.ts'

export type MayClaim = 'yes' | 'unknown' | 'drain'

/** What the cordon needs: the flag, as Redis has it now, and a way to requeue leases. */
export interface CordonParts {
  readonly fleet: { readonly registry: { mayClaim(workerId: string, keyId?: string): Promise<MayClaim> } }
  readonly jobs: Jobs
  readonly access: Pick<Access, 'requireStill'>
}

export class Cordon {
  readonly #parts: CordonParts

  constructor(parts: CordonParts) {
    this.#parts = parts
  }

  /** @param keyId the API key of the caller: it may only ask for workers that it introduced */
  async look(workerId: string, keyId = ''): Promise<MayClaim> {
    return await this.#parts.fleet.registry.mayClaim(workerId, keyId)
  }

  /** @throws Problem worker_unknown, drained_worker, forbidden */
  async check(workerId: string, keyId = ''): Promise<void> {
    refuse(await this.look(workerId, keyId))
  }

  /**
   * The second look, to be taken when the leases are made and before the reply is sent. Leases that may not be delivered
   * (the worker drains, is unknown, or has disconnected) are requeued.
   * @returns whether they may be delivered
   * @throws Problem unauthenticated, and what Redis says when it is away: then the leases run out
   */
  async mayDeliver(
    workerId: string,
    queue: string,
    leases: readonly Lease[],
    { request, raw }: FastifyReply,
  ): Promise<MayClaim> {
    if (leases.length === 0) return 'yes'
    const requeue = async (): Promise<unknown> => await this.#parts.jobs.of(queue).claims.requeue(leases)
    const [may] = await Promise.all([this.look(workerId), this.#isStillKnown(request)]).catch(
      async (error: unknown) => {
        if (error instanceof Problem && error.code === 'unauthenticated') await requeue()
        throw error
      },
    )
    if (may !== 'yes' || raw.destroyed) await requeue()
    return may
  }

  async #isStillKnown({ caller, headers }: FastifyRequest): Promise<void> {
    await this.#parts.access.requireStill(caller, headers.authorization)
  }
}

/** @throws Problem worker_unknown, drained_worker */
export function refuse(may: MayClaim): void {
  if (may === 'unknown') throw new Problem('worker_unknown')
  if (may === 'drain') throw new Problem('drained_worker')
}
