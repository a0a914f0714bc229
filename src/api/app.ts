/** The HTTP server: plugins, then routes, each listed once. */
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import { fastify, LogController } from 'fastify'
import type { Logger } from 'pino'
import { Problem } from '../errors.ts'
import type { Api, App } from './api.ts'
import { parseJson } from './bodies/json-text.ts'
import { addShutdownNotice } from './graceful-shutdown.ts'
import { addAccess } from './plugins/access.ts'
import { addAdmission, headWithinMs } from './plugins/admission.ts'
import { LoginGuard } from './plugins/login-guard.ts'
import { addOpenapi } from './plugins/openapi.ts'
import { addProblems, sendProblem, toProblem } from './plugins/problems.ts'
import { addQueuedReplies } from './plugins/queued-replies.ts'
import { addReplyHeaders, requestIds } from './plugins/request-id.ts'
import { addStrictHttp } from './plugins/strict-http.ts'
import { addValidation } from './plugins/validation.ts'
import { addAudit } from './routes/audit.ts'
import { addDocs, addEntrance } from './routes/docs.ts'
import { addEnqueue } from './routes/enqueue.ts'
import { addFleet } from './routes/fleet.ts'
import { addHandlers, addTypes } from './routes/handlers.ts'
import { addHealth } from './routes/health.ts'
import { addJobs } from './routes/jobs.ts'
import { addJoin } from './routes/join.ts'
import { addKeys } from './routes/keys.ts'
import { addPullCompleted } from './routes/pull-completed.ts'
import { addQueues } from './routes/queues.ts'
import { addStatus } from './routes/status.ts'
import { addWorkerBundle, addWorkerHandlers } from './routes/worker-downloads.ts'
import { addWorkers } from './routes/workers.ts'
import { minVersion, type TlsPair } from './tls-files.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** The body with its numbers as they were sent, when doubles cannot hold them and the route asks for it. */
    exactBody: unknown
  }
  interface FastifyContextConfig {
    /** Numbers of the body are passed on. */
    wantsExactNumbers?: boolean
  }
}

const serverOptions = {
  // strict-http.ts answers a request without a Host, in the same form as all other problems.
  requireHostHeader: false,
  headersTimeout: headWithinMs,
  connectionsCheckingInterval: headWithinMs / 4,
} as object

/**
 * Builds the server; it does not listen yet.
 * @param tls the certificate and key to serve with; left out: plain HTTP
 */
export async function createApp(api: Api, log: Logger, tls?: TlsPair): Promise<App> {
  const { trustedProxies } = api.settings
  const app = fastify({
    ...(tls === undefined ? { http: serverOptions } : { https: { ...tls, minVersion, ...serverOptions } }),
    // X-Forwarded-For counts from these addresses alone.
    trustProxy: trustedProxies.length > 0 ? [...trustedProxies] : false,
    loggerInstance: log,
    // A line for each of thousands of requests a second helps no reader. Faults are logged where they are answered.
    logController: new LogController({ disableRequestLogging: true }),
    // A child logger for every request costs more than most requests ever log; the id of the request is added to what
    // is.
    childLoggerFactory: logger => logger,
    // pace.ts limits how slowly a body may arrive.
    requestTimeout: 0,
    genReqId: requestIds(),
    requestIdHeader: false,
    // Longer than the idle timeout of load balancers, so that they close connections first.
    keepAliveTimeout: 75_000,
    routerOptions: { maxParamLength: 256, ignoreTrailingSlash: true },
    // On close: idle connections at once, busy ones after their reply.
    forceCloseConnections: 'idle',
    return503OnClosing: false,
    frameworkErrors: (error, request, reply) => sendProblem(toProblem(error, request), request, reply),
    clientErrorHandler(error, socket) {
      if (error.code === 'ECONNRESET' || socket.destroyed) return
      const problem = new Problem('request_invalid', 'This is not a valid HTTP request.')
      const body = JSON.stringify(problem.toBody())
      socket.end(
        `HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: application/problem+json\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
      )
    },
  }).withTypeProvider<TypeBoxTypeProvider>() as unknown as App

  addQueuedReplies(app)
  addReplyHeaders(app, tls !== undefined)
  addProblems(app, {
    explainOutage: () => api.jobs.memoryGuard.diskFault(),
    loginGuard: new LoginGuard(api.settings.maxFailedLogins, log),
    refusals: api.refusals,
  })
  addStrictHttp(app)
  addAccess(app, api)
  addAdmission(app, api.settings)
  addValidation(app)
  addBodies(app)
  addShutdownNotice(app, api.stopping)
  await addOpenapi(app)

  await app.register((scope, _options, done) => {
    // PUT /enqueue reads its body itself, as a stream, in four forms.
    scope.removeAllContentTypeParsers()
    scope.addContentTypeParser('*', (_request, _payload, done) => done(null))
    addEnqueue(scope as unknown as App, api)
    done()
  })
  await app.register((scope, _options, done) => {
    addHandlers(scope as unknown as App, api)
    done()
  })
  addPullCompleted(app, api)
  addStatus(app, api)
  addTypes(app, api)
  addEntrance(app)
  addJobs(app, api)
  addQueues(app, api)
  addFleet(app, api)
  addWorkers(app, api)
  addWorkerBundle(app)
  addWorkerHandlers(app, api)
  addJoin(app, api)
  addKeys(app, api)
  addAudit(app, api)
  addHealth(app, api)
  addDocs(app)
  return app
}

/** Bodies are JSON. An empty body counts as none, also with a Content-Type: many clients send one with every POST. */
function addBodies(app: App): void {
  app.removeAllContentTypeParsers()
  app.decorateRequest('exactBody', undefined)
  app.addContentTypeParser('application/json', { parseAs: 'buffer' }, (request, body, done) => {
    if (body.length === 0) return done(null, undefined)
    try {
      const { value, exact } = parseJson(body as Buffer, request.routeOptions.config.wantsExactNumbers === true)
      request.exactBody = exact
      return done(null, value)
    } catch (error) {
      return done(error as Error)
    }
  })
  app.addContentTypeParser('*', (request, _payload, done) => {
    if (request.is404) return done(null)
    const isEmpty =
      request.headers['transfer-encoding'] === undefined && Number(request.headers['content-length'] ?? 0) === 0
    const sent = request.headers['content-type']
    return done(
      isEmpty
        ? null
        : sent === undefined
          ? new Problem('content_type_missing')
          : new Problem('content_type_unsupported', `This call takes application/json, not ${sent.slice(0, 100)}.`),
    )
  })
}
