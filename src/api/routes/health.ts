/** /health: for load balancers and supervisors. */
import { Type } from 'typebox'
import { NodeReport } from '../../contract/node-report.ts'
import { Problem } from '../../errors.ts'
import type { Api, App } from '../api.ts'
import { nodeReporter } from '../node-report.ts'
import { problems } from '../schemas.ts'

const Healthy = Type.Object({ status: Type.Literal('ok') })
const Ready = Type.Object({
  status: Type.Literal('ok'),
  overloaded: Type.Optional(
    Type.String({ description: 'Why no new work is taken now, memory or disk; all that ends work goes on' }),
  ),
})

export function addHealth(app: App, api: Api): void {
  const { ping, stopping, jobs } = api
  const report = nodeReporter(api)
  const isReady = async () => {
    if (stopping.aborted) throw new Problem('shutting_down')
    await ping()
    const overloaded = jobs.memoryGuard.overload()
    return { status: 'ok' as const, ...(overloaded !== undefined && { overloaded }) }
  }
  app.get(
    '/health/live',
    { schema: { operationId: 'live', summary: 'The process answers', tags: ['node'], response: { 200: Healthy } } },
    async () => ({ status: 'ok' as const }),
  )

  app.get(
    '/health/ready',
    {
      schema: {
        operationId: 'ready',
        summary: 'The node can take work: Redis answers, and it is not stopping',
        tags: ['node'],
        response: { 200: Ready, ...problems('shutting_down') },
      },
    },
    isReady,
  )

  // The names that Kubernetes made usual.
  const alias = { schema: { hide: true } as object }
  for (const path of ['/livez', '/healthz']) app.get(path, alias, async () => ({ status: 'ok' as const }))
  app.get('/readyz', alias, isReady)

  app.get(
    '/health/checks',
    {
      schema: {
        operationId: 'nodeChecks',
        summary: 'The inside view of this node, as `muster doctor` reads it',
        description: 'Always answers 200, also while Redis is unavailable.',
        tags: ['node'],
        response: { 200: NodeReport, ...problems() },
      },
    },
    async () => await report(),
  )
}
