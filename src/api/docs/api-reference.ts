/** The API reference at /docs/api and its script, out of Scalar's plugin. */
import { createHash } from 'node:crypto'
import { fastify } from 'fastify'
import type { AssetContent } from './asset.ts'

const configuration = {
  title: 'Muster API',
  url: './openapi.json',
  withDefaultFonts: false,
  telemetry: false,
  showDeveloperTools: 'never',
  mcp: { disabled: true },
  hideClientButton: true,
  agent: { disabled: true },
}

let files: Promise<{ html: string; script: Buffer }> | undefined

/** The plugin serves its files as text that is converted for every request: they are taken out of it once. */
function scalarFiles(): Promise<{ html: string; script: Buffer }> {
  files ??= readScalarFiles()
  return files
}

async function readScalarFiles(): Promise<{ html: string; script: Buffer }> {
  const { default: scalar } = await import('@scalar/fastify-api-reference')
  const inner = fastify()
  await inner.register(scalar, { routePrefix: '/docs', configuration: configuration as never })
  const [html, script] = [await inner.inject('/docs/'), await inner.inject('/docs/js/scalar.js')]
  await inner.close()
  return { html: html.body, script: script.rawPayload }
}

export async function apiPage(): Promise<AssetContent> {
  const { html } = await scalarFiles()
  const inline = [...html.matchAll(/<script(?![^>]*\ssrc=)[^>]*>([\s\S]*?)<\/script>/g)].map(
    ([, text = '']) => `'sha256-${createHash('sha256').update(text).digest('base64')}'`,
  )
  return {
    type: 'text/html; charset=utf-8',
    body: html.replace(
      '<title>Scalar API Reference</title>',
      '<title>Muster API</title><link rel="icon" href="data:,">',
    ),
    contentSecurityPolicy: [
      "default-src 'none'",
      `script-src 'self' ${inline.join(' ')}`,
      "style-src 'self' 'unsafe-inline'",
      "img-src 'self' data: blob:",
      "font-src 'self' data:",
      "connect-src 'self'",
      "worker-src 'self' blob:",
      "base-uri 'none'",
      "form-action 'none'",
      "frame-ancestors 'none'",
    ].join('; '),
  }
}

export const apiScript = async (): Promise<AssetContent> => ({
  type: 'text/javascript; charset=utf-8',
  body: (await scalarFiles()).script,
})
