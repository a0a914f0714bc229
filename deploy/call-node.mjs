/** Calls of a node from a script that has nothing but Node.js. */
import { readFileSync } from 'node:fs'
import { request as requestHttp } from 'node:http'
import { request as requestHttps } from 'node:https'
import { rootCertificates } from 'node:tls'

const callTimeoutMs = 15_000

/**
 * @param keyFile file with the API key; without one, calls have none
 * @param caFile authority of the nodes' certificates, besides those that Node.js knows
 * @returns a function that makes one call and gives `{ status, headers, text, json }`; `json` is undefined for a body that is none
 */
export function makeCall({ keyFile, caFile }) {
  const key = keyFile === undefined ? '' : readFileSync(keyFile, 'utf8').trim()
  const ca = caFile === undefined ? undefined : [...rootCertificates, readFileSync(caFile, 'utf8')]
  const authorization = key === '' ? {} : { authorization: `Bearer ${key}` }
  return (base, method, path, { headers = {}, body, timeoutMs = callTimeoutMs } = {}) => {
    const url = new URL(path, base)
    const send = url.protocol === 'https:' ? requestHttps : requestHttp
    return new Promise((resolve, reject) => {
      const signal = AbortSignal.timeout(timeoutMs)
      const request = send(url, { method, headers: { ...authorization, ...headers }, ca, signal })
      request.on('error', reject)
      request.on('response', response => {
        const chunks = []
        response.on('error', reject)
        response.on('data', chunk => chunks.push(chunk))
        response.on('end', () => {
          const text = Buffer.concat(chunks).toString()
          resolve({ status: response.statusCode, headers: response.headers, text, json: parse(text) })
        })
      })
      request.end(body)
    })
  }
}

/** A reply in a line. */
export function describe({ status, text = '' }) {
  return `${status} ${text.slice(0, 1000)}`
}

function parse(text) {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
