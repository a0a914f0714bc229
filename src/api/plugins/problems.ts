/** Every error leaves as RFC 9457 problem+json with a stable code; what is not a Problem yet is made one here. */

import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify'
import { Problem, type ProblemCode } from '../../errors.ts'
import { isRedisAway, isRedisFull, NotDurableError } from '../../redis/redis-errors.ts'
import type { Refusals } from '../../refusal-counts.ts'
import type { App } from '../api.ts'
import { lingerAfter } from '../client-connection.ts'
import type { LoginGuard } from './login-guard.ts'

interface ValidationFault {
  readonly keyword: string
  readonly instancePath: string
  readonly message?: string
  readonly params: Record<string, unknown>
}

const byFastifyCode: Readonly<Record<string, ProblemCode>> = {
  FST_ERR_CTP_BODY_TOO_LARGE: 'body_too_large',
  FST_ERR_CTP_INVALID_MEDIA_TYPE: 'content_type_unsupported',
  FST_ERR_CTP_EMPTY_TYPE: 'content_type_missing',
  FST_ERR_CTP_INVALID_JSON_BODY: 'json_invalid',
}

const methods = ['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS'] as const

export interface ProblemsOptions {
  /** Says why Redis may be away, when this node knows a reason. */
  readonly explainOutage: () => string | undefined
  readonly loginGuard: LoginGuard
  readonly refusals: Refusals
}

export function addProblems(app: App, { explainOutage, loginGuard, refusals }: ProblemsOptions): void {
  const routes: { method: string; path: RegExp }[] = []
  app.addHook('onRoute', route => {
    const path = new RegExp(`^${route.url.replace(/[.*+?^${}()|[\]\\]/g, '\\$&').replace(/:[A-Za-z]+/g, '[^/]+')}/?$`)
    for (const method of [route.method].flat()) routes.push({ method, path })
  })
  app.setErrorHandler((error: FastifyError, request, reply) =>
    sendProblem(counted(guarded(toProblem(error, request, explainOutage), request), request), request, reply),
  )
  function guarded(problem: Problem, { ip }: FastifyRequest): Problem {
    if (problem.code !== 'unauthenticated') return problem
    refusals.add('FailedLogins')
    const retryAfterMs = loginGuard.failed(ip)
    return retryAfterMs === undefined
      ? problem
      : new Problem('too_many_requests', 'Too many requests without a good key came from this address.', {
          retryAfterMs,
        })
  }
  function counted(problem: Problem, { routeOptions }: FastifyRequest): Problem {
    if (problem.code === 'too_many_requests') refusals.add('ThrottledRequests')
    if (routeOptions.url === '/workers/join' && [401, 403, 404, 429].includes(problem.status))
      refusals.add('RefusedJoins')
    return problem
  }
  app.setNotFoundHandler((request, reply) => {
    const path = request.url.split('?')[0] as string
    const allowed = methods.filter(method => routes.some(route => route.method === method && route.path.test(path)))
    if (allowed.length === 0)
      return sendProblem(new Problem('route_not_found', `Nothing is at ${path.slice(0, 200)}.`), request, reply)
    void reply.header('allow', allowed.join(', '))
    return sendProblem(
      new Problem('method_not_allowed', `${path.slice(0, 200)} takes ${allowed.join(', ')}, not ${request.method}.`),
      request,
      reply,
    )
  })
}

export function sendProblem(problem: Problem, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  if (problem.retryAfterMs !== undefined)
    void reply.header('retry-after', String(Math.ceil(problem.retryAfterMs / 1000)))
  if (problem.status === 401) void reply.header('www-authenticate', 'Bearer realm="muster"')
  // What the client still sends would have to be read to the end for nothing.
  if (hasMoreToCome(request) && problem.status >= 400) {
    void reply.header('connection', 'close')
    lingerAfter(request.raw)
  }
  return reply
    .code(problem.status)
    .type('application/problem+json; charset=utf-8')
    .serializer((body: unknown) => JSON.stringify(body))
    .send({ ...problem.toBody(), instance: request.id })
}

/** What has no body is not complete yet either while its head is looked at. */
function hasMoreToCome({ raw: { complete, headers } }: FastifyRequest): boolean {
  return !complete && (headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0)
}

export function toProblem(
  error: FastifyError,
  request: FastifyRequest,
  explainOutage: () => string | undefined = () => undefined,
): Problem {
  if (error instanceof Problem) return error
  if (isRedisFull(error))
    return new Problem(
      'overloaded',
      'Memory: Redis is at its limit. Collect or cancel jobs, start workers, or give Redis more memory.',
      { cause: error, retryAfterMs: 10_000 },
    )
  if (isRedisAway(error)) {
    const detail = (error as Error) instanceof NotDurableError ? error.message : explainOutage()
    return new Problem('redis_unavailable', detail, { cause: error })
  }
  if (error.validation !== undefined)
    return fromValidation(error.validation as ValidationFault[], error.validationContext ?? 'body')
  const known = byFastifyCode[error.code ?? '']
  if (known !== undefined) return new Problem(known, undefined, { cause: error })
  if (error.statusCode !== undefined && error.statusCode >= 400 && error.statusCode < 500)
    return new Problem('request_invalid', error.message, { cause: error })
  if (request.raw.destroyed && !request.raw.complete) return new Problem('request_invalid', 'The client went away.')
  // Without the query: it may hold the token of a lease.
  const path = request.url.split('?')[0]
  request.log.error({ err: error, requestId: request.id, method: request.method, path }, 'unexpected error')
  return new Problem(
    'internal_error',
    `Something broke that should not; the log of the node tells of it under the request id ${request.id}.`,
    { cause: error },
  )
}

function fromValidation(faults: readonly ValidationFault[], context: string): Problem {
  const [fault] = faults
  const inQuery = context === 'querystring' || context === 'params'
  if (fault === undefined) return new Problem('request_invalid')
  const place = fault.instancePath.slice(1).replaceAll('/', '.')
  const name = (key: string): string => [place, String(fault.params[key])].filter(part => part !== '').join('.')
  if (fault.keyword === 'required')
    return new Problem(inQuery ? 'parameter_invalid' : 'request_invalid', `"${name('missingProperty')}" is missing.`)
  if (fault.keyword === 'additionalProperties') {
    return new Problem('parameter_unknown', `"${name('additionalProperty')}" is not known here.`)
  }
  const subject = place === '' ? (inQuery ? 'the query' : `the ${context}`) : `"${place}"`
  const values = fault.keyword === 'enum' ? `: ${(fault.params.allowedValues as unknown[]).join(', ')}` : ''
  return new Problem(
    inQuery ? 'parameter_invalid' : 'request_invalid',
    `${subject} ${fault.message ?? 'is not valid'}${values}.`,
  )
}
