-- Asks Ostiary whether a request may pass, and tells the API who is calling. For haproxy.cfg; HAProxy 2.6 or newer.

local ADDRESS = "http://127.0.0.1:8080/.ostiary/auth"
local MILLISECONDS = 5000

-- What the API is told. Whatever a client has sent under these names is replaced, or goes.
local IDENTITY = {
    "x-user-id", "x-tenant-id", "x-key-id", "x-key-environment", "x-auth-kind", "x-scopes", "x-plan",
    "x-identity-assertion", "x-request-id",
}
-- What a refused caller is told, beside the body.
local TOLD = {
    "content-type", "cache-control", "www-authenticate", "retry-after", "allow", "ratelimit", "ratelimit-policy",
    "x-request-id", "vary", "access-control-allow-origin", "access-control-expose-headers",
}
-- What is not for Ostiary: what belongs to one connection, and names of the request other than ours.
local KEPT_BACK = {
    ["host"] = true, ["connection"] = true, ["keep-alive"] = true, ["te"] = true, ["trailer"] = true,
    ["transfer-encoding"] = true, ["content-length"] = true, ["upgrade"] = true, ["expect"] = true,
    ["x-forwarded-method"] = true, ["x-forwarded-uri"] = true, ["x-forwarded-host"] = true,
    ["x-forwarded-for"] = true, ["forwarded"] = true, ["x-original-method"] = true, ["x-original-uri"] = true,
    ["x-original-url"] = true, ["x-original-host"] = true,
}
local UNAVAILABLE = '{"type": "about:blank", "code": "auth_unavailable", "status": 503, '
    .. '"title": "Whether you may pass cannot be told right now."}'

local function question(txn)
    local headers = {}
    for name, values in pairs(txn.http:req_get_headers()) do
        if not KEPT_BACK[name] then
            headers[name] = {}
            for index = 0, #values do
                table.insert(headers[name], values[index])
            end
        end
    end
    headers["x-forwarded-method"] = { txn.sf:method() }
    headers["x-forwarded-uri"] = { txn.sf:pathq() }
    headers["x-forwarded-host"] = { txn.sf:req_hdr("host") }
    headers["x-forwarded-for"] = { txn.sf:src() }
    return headers
end

local function refuse(txn, answer)
    local reply = txn:reply()
    if not answer or not answer.headers or not answer.headers["ostiary-problem"] then -- no node of Ostiary answers
        reply:set_status(503)
        reply:add_header("content-type", "application/problem+json")
        reply:add_header("cache-control", "no-store")
        reply:add_header("retry-after", "2")
        reply:set_body(UNAVAILABLE)
    else
        reply:set_status(answer.status)
        for _, name in ipairs(TOLD) do
            for _, value in pairs(answer.headers[name] or {}) do
                reply:add_header(name, value)
            end
        end
        reply:set_body(answer.body)
    end
    txn:done(reply)
end

core.register_action("ostiary", { "http-req" }, function(txn)
    local answer = core.httpclient():get({ url = ADDRESS, headers = question(txn), timeout = MILLISECONDS })
    if not answer or answer.status ~= 200 then
        return refuse(txn, answer)
    end
    for _, name in ipairs(IDENTITY) do
        local value = answer.headers[name] and answer.headers[name][0]
        if value and value ~= "" then
            txn.http:req_set_header(name, value)
        else
            txn.http:req_del_header(name)
        end
    end
    for _, name in ipairs({ "ratelimit", "ratelimit-policy" }) do
        local value = answer.headers[name] and answer.headers[name][0]
        if value then
            txn:set_var("txn.ostiary_" .. name:gsub("-", "_"), value)
        end
    end
end)
