/** POST /workers/join: the first token of an instance, for the join secret that it has from its image or from SSM. */
import { JoinReply, JoinRequest } from '../../contract/worker-protocol.ts'
import { Problem } from '../../errors.ts'
import type { Api, App } from '../api.ts'
import { problems } from '../schemas.ts'

export function addJoin(app: App, api: Api): void {
  app.post(
    '/workers/join',
    {
      schema: {
        operationId: 'workerJoin',
        summary: 'An instance of the fleet gets its first token',
        description: 'With the join secret (MUSTER_WORKER_JOIN_SECRET of the nodes) as bearer token.',
        tags: ['workers'],
        security: [{ bearer: ['join'] }],
        body: JoinRequest,
        response: {
          200: JoinReply,
          ...problems('unauthenticated', 'forbidden', 'instance_not_found', 'request_invalid', 'json_invalid'),
        },
      } as never,
      // Before the body is looked at: who does not know the secret learns nothing of instances.
      onRequest: async ({ headers, log, ip, id }) => {
        if (api.access.isJoinSecret(headers.authorization)) return
        log.warn({ ip, requestId: id }, 'a join request without the join secret was refused')
        throw new Problem('unauthenticated', 'Joining takes the join secret of this deployment as bearer token.')
      },
    },
    async ({ body, log, ip, id }) => {
      const { instanceId, queue, nonce = '', document = '' } = body as JoinRequest
      if (api.access.hasEnded(instanceId)) throw new Problem('forbidden', `The instance ${instanceId} has ended.`)
      const instance = await api.fleet.instance(instanceId)
      if (instance === undefined) throw new Problem('instance_not_found', `This fleet has no instance ${instanceId}.`)
      if (instance.pool !== queue)
        throw new Problem('forbidden', `The instance ${instanceId} was launched for the queue "${instance.pool}".`)
      const refusal = await api.access.joinProofs?.check(instance, { ip, nonce, document })
      if (refusal === 'hidden')
        throw new Problem('instance_not_found', `The provider does not show the addresses of ${instanceId} yet.`)
      if (refusal !== undefined) {
        log.warn(
          { instanceId, queue, ip, requestId: id, reason: refusal },
          'a join request for an instance was refused',
        )
        throw new Problem('forbidden', `The join as ${instanceId} is refused: ${refusal}.`)
      }
      const { token, expiresAt } = api.access.mintFirstToken(instanceId, queue)
      log.info({ instanceId, queue, ip }, 'an instance has joined')
      return { token, expiresAt: new Date(expiresAt).toISOString() } as never
    },
  )
}
