// Requests to the page's own server; every address is relative to the token in this page's.

export class Fault extends Error {
  constructor(status, data) {
    super(data.error || `${status}`);
    this.status = status;
    this.data = data;
  }
}

async function answered(response) {
  const data = await response.json().catch(() => ({ error: `${response.status}` }));
  if (!response.ok) throw new Fault(response.status, data);
  return data;
}

export function address(path, params = {}) {
  const query = new URLSearchParams(params).toString();
  return query ? `${path}?${query}` : path;
}

export async function get(path, params) {
  return answered(await fetch(address(path, params)));
}

export async function post(path, body) {
  const headers = { "content-type": "application/json" };
  return answered(await fetch(path, { method: "POST", headers, body: JSON.stringify(body) }));
}

export function thumb(row) {
  return address("thumb", { key: row.key, v: row.version });
}

export function picture(row, which = "now") {
  return address("picture", { key: row.key, which, v: row.version });
}
