/**
 * What an instance shows beside the join secret, which every instance of the fleet can read: that it calls from its own address,
 * that it is the one that joined first, and (where the settings ask for it) the identity document that AWS signs for it.
 */
import type { Certificate } from 'pkijs'
import type { FirstUse } from './first-use.ts'
import { verifyIdentityDocument } from './identity-document.ts'

export interface JoinProofOptions {
  readonly firstUse: FirstUse
  readonly proofs: 'none' | 'address' | 'document' | 'both'
  /** Those of AWS for the region of the fleet. */
  readonly certificates: readonly Certificate[]
  readonly region: string
  /** An instance that joins for the first time was launched no longer ago than this. */
  readonly youngMs: number
  readonly clock?: () => number
}

/** What its provider knows of an instance. */
export interface JoiningInstance {
  readonly id: string
  /** Where its calls come from; empty while the provider does not show it yet, absent where it has nothing to tell. */
  readonly addresses?: readonly string[]
  readonly accountId?: string
}

export interface JoinCall {
  readonly ip: string
  readonly nonce: string
  readonly document: string
}

export class JoinProofs {
  readonly #options: JoinProofOptions

  constructor(options: JoinProofOptions) {
    this.#options = options
  }

  /** @returns why it is refused; undefined when it may join. `hidden`: its provider does not show yet what it takes to tell */
  async check(instance: JoiningInstance, call: JoinCall): Promise<string | 'hidden' | undefined> {
    const { firstUse, proofs, youngMs, clock = Date.now } = this.#options
    if (proofs === 'address' || proofs === 'both') {
      const { addresses } = instance
      if (addresses?.length === 0) return 'hidden'
      if (addresses !== undefined && !addresses.includes(plainAddress(call.ip)))
        return `it calls from ${plainAddress(call.ip)}, which is no address of this instance`
    }
    const document = await this.#checkDocument(instance, call.document)
    if (typeof document === 'string') return document
    // Before it is bound: an old document must not keep its owner out.
    const isOld = document !== undefined && clock() - document.pendingAt > youngMs
    if (isOld && !(await firstUse.isKnown(instance.id)))
      return `its identity document is of ${new Date(document.pendingAt).toISOString()}: too old for a first join`
    if ((await firstUse.join(instance.id, call.nonce)) === 'refused')
      return 'the instance has joined before, and the word that it showed then is not shown'
    return undefined
  }

  async #checkDocument(instance: JoiningInstance, signed: string): Promise<{ pendingAt: number } | string | undefined> {
    const { proofs, certificates, region } = this.#options
    if (proofs !== 'document' && proofs !== 'both') return undefined
    const document = await verifyIdentityDocument(signed, certificates)
    if (document === undefined) return 'it shows no identity document that AWS has signed for this region'
    if (document.instanceId !== instance.id) return `its identity document is of ${document.instanceId}`
    if (document.region !== region) return `its identity document is of the region ${document.region}`
    if (instance.accountId !== undefined && document.accountId !== instance.accountId)
      return `its identity document is of the account ${document.accountId}`
    return document
  }
}

/** A socket for both families tells IPv4 in the words of IPv6. */
const plainAddress = (ip: string): string => ip.replace(/^::ffff:/i, '')
